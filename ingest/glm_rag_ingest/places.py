"""Which files of this computer others may have read, and which are theirs: uploads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from glm_rag.errors import ConfigError
from glm_rag.knowledge.uploads import uploads_of
from glm_rag.settings import expand_user
from glm_rag_ingest.prune import path_of


class MissingPathError(ConfigError):
    """A path that may be read is not there."""


def allowed_path(text: str, allowed: Sequence[Path]) -> Path:
    """The real folder or file behind what somebody typed.

    Raises:
        MissingPathError: it is not there. ConfigError: it lies outside the allowed folders,
            wherever links and `..` lead.
    """
    folders = [Path(os.path.realpath(folder)) for folder in allowed]
    outside = f"{text!r} lies outside the folders that may be read"
    try:
        path = Path(os.path.realpath(expand_user(text.strip())))
    except ValueError as error:  # a NUL, half a character
        raise ConfigError(outside) from error
    # Also of what is not there: whether a file exists elsewhere is nobody's business.
    if not text.strip() or not any(map(path.is_relative_to, folders)):
        raise ConfigError(outside)
    if not path.exists():
        raise MissingPathError(f"there is no file or folder {text!r}")
    return path


def uploaded_file(source: str, kb: str, home: Path) -> Path | None:
    """The file of a source if it is kept among the uploads of a knowledge base."""
    path = path_of(source)
    folders = [Path(os.path.realpath(folder)) for folder in uploads_of(kb, home)]
    real = None if path is None else Path(os.path.realpath(path))
    return path if real and any(map(real.is_relative_to, folders)) else None


def delete_upload(source: str, kb: str, home: Path) -> None:
    """Delete the file of a document that is gone, if it was uploaded; all others stay."""
    if "#" in source:  # a member: the file belongs to its container
        return
    path = uploaded_file(source, kb, home)
    if path is not None:
        path.unlink(missing_ok=True)
