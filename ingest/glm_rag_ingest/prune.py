"""Documents whose files are gone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from glm_rag_ingest.discover import Discovery


def path_of(source: str) -> Path | None:
    """The file behind a `file:` URI; None for any other source."""
    parts = urlsplit(source)
    return Path(os.fsdecode(unquote_to_bytes(parts.path))) if parts.scheme == "file" else None


def sources_below(roots: Iterable[Path], sources: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Those sources that are one of the roots or lie below one."""
    roots = list(roots)
    for source in sources:
        path = path_of(source)
        if path is not None and any(path.is_relative_to(root) for root in roots):
            yield source, path


def vanished(found: Discovery, sources: Iterable[str]) -> tuple[list[str], list[str]]:
    """Sources below the named paths whose files are gone, and warnings.

    A file that may merely not be looked at is not gone. Where a named folder has no file left at
    all, or a folder below it is there and empty, nothing in it is taken for gone: most likely a
    disk is not mounted.
    """
    gone: list[str] = []
    warnings: list[str] = []
    known = list(sources)
    for root in found.roots:
        here = [(source, path) for source, path in sources_below([root], known) if _is_gone(path)]
        if here and not any(file.path.is_relative_to(root) for file in found.files):
            warnings.append(
                f"{root} holds no file any more: nothing was pruned; if its disk is mounted and "
                "this is right, remove the documents with glm-rag kb remove"
            )
            continue
        empty: set[Path] = set()
        for source, path in here:
            folder = next((parent for parent in path.parents if parent.is_dir()), root)
            if folder != root and _is_empty(folder):
                empty.add(folder)
            else:
                gone.append(source)
        warnings += [
            f"{folder} is empty: its documents stay; if its disk is mounted and this is right, "
            "remove the folder and run again"
            for folder in sorted(empty)
        ]
    return list(dict.fromkeys(gone)), warnings


def _is_empty(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return False


def _is_gone(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
