"""A page of a PDF as a picture, drawn by a process of its own: a hostile file ends only that.

Only files that a knowledge base holds are opened, and only while they are what was read.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from glm_rag.types import DocumentInfo

MEDIA_TYPE = "application/pdf"
LONGEST_SIDE = 1600  # pixels
_SCALE = 2.0  # of 72 dots per inch
_SECONDS = 30.0
_MEMORY_BYTES = 4 << 30
_NO_SUCH_PAGE, _CANNOT_OPEN, _NOT_INSTALLED = 3, 4, 5
_REASONS = {
    _NO_SUCH_PAGE: "pdf_no_page",
    _CANNOT_OPEN: "pdf_unreadable",
    _NOT_INSTALLED: "pdf_not_installed",
}


class NoPicture(Exception):  # an outcome to be told, not a fault
    """Why there is no picture; `key` names the words that say so."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


@dataclass(frozen=True, slots=True)
class Picture:
    """A page as PNG, and how many pages the file has."""

    png: bytes
    num_pages: int


def file_of(info: DocumentInfo) -> Path:
    """The file a document was read from.

    Raises:
        NoPicture: it lies inside another, is gone, or is not what was read.
    """
    address = urlsplit(info.source)
    if info.container or address.scheme != "file" or address.netloc not in {"", "localhost"}:
        raise NoPicture("pdf_inside")
    path = Path(url2pathname(address.path))
    try:
        status = path.stat()
        if not path.is_file():
            raise NoPicture("pdf_gone")
        if status.st_size != info.size:
            raise NoPicture("pdf_changed")
        if abs(status.st_mtime - info.mtime) > 0.001 and _digest(path) != info.sha256:
            raise NoPicture("pdf_changed")
    except (OSError, ValueError) as error:
        raise NoPicture("pdf_gone") from error
    return path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def draw(path: Path, number: int) -> Picture:
    """Page `number` (from 1), no side longer than `LONGEST_SIDE` pixels.

    Raises:
        NoPicture: no such page, PDFium cannot draw it, takes too long, or is not installed.
    """
    command = [sys.executable, "-P", "-m", "glm_rag_ui.pdf_page", str(path), str(number)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NoPicture("pdf_slow") from error
    if done.returncode:
        raise NoPicture(_REASONS.get(done.returncode, "pdf_unreadable"))
    count, _, png = done.stdout.partition(b"\n")
    return Picture(png, int(count))


def main(path: str, number: int) -> int:
    """In the child: write the number of pages, a line end and the PNG; returns the exit code."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    try:
        import pypdfium2
    except ImportError:
        return _NOT_INSTALLED
    try:
        with contextlib.closing(pypdfium2.PdfDocument(path)) as document:
            if not 1 <= number <= len(document):
                return _NO_SUCH_PAGE
            page = document[number - 1]
            scale = min(_SCALE, LONGEST_SIDE / max(1.0, *page.get_size()))
            picture = page.render(scale=scale).to_pil().convert("RGB")
            sys.stdout.buffer.write(f"{len(document)}\n".encode())
            picture.save(sys.stdout.buffer, "PNG")
    except Exception:  # noqa: BLE001  # whatever PDFium makes of a strange file
        return _CANNOT_OPEN
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
