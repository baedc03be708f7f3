"""Old Word and PowerPoint files (.doc, .ppt) and OpenDocument slides, converted by LibreOffice."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from glm_rag_ingest.loaders import docx, pptx
from glm_rag_ingest.loaders.base import Extracted, failure
from glm_rag_ingest.loaders.office import OLE_MAGIC, encrypted, is_encrypted

SUFFIXES = (".doc", ".odp", ".ppt")
MEDIA_TYPE = "application/x-ole-storage"

_COMMANDS = ("soffice", "libreoffice")
_SECONDS = 120  # less than a whole file may take, so that no converter outlives its reader
_POWERPOINT_STREAM = "PowerPoint Document".encode("utf-16-le")


def _converter() -> str | None:
    return next(filter(None, map(shutil.which, _COMMANDS)), None)


# Changes when LibreOffice is installed: then the files that needed it are read again.
VERSION = "-".join(("legacy/1", *(loader.VERSION.replace("/", "") for loader in (docx, pptx)))) + (
    "-soffice" if _converter() else ""
)


def extract(data: bytes) -> Extracted:
    """Convert to .docx or .pptx and read that.

    Raises:
        DocumentError: `unsupported` without LibreOffice, `encrypted`, or `corrupt`.
    """
    is_slides = _POWERPOINT_STREAM in data or not data.startswith(OLE_MAGIC)
    target = "pptx" if is_slides else "docx"
    if is_encrypted(data):
        raise encrypted()
    converter = _converter()
    if converter is None:
        detail = (
            f"files of this kind are read with LibreOffice: install it, or save it as .{target}"
        )
        raise failure("unsupported", detail)
    converted = _convert(converter, data, target)
    return pptx.extract(converted) if is_slides else docx.extract(converted)


def _convert(converter: str, data: bytes, target: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="glm-rag-") as name:
        folder = Path(name)
        source = folder / "document"
        source.write_bytes(data)
        profile = f"-env:UserInstallation={(folder / 'profile').as_uri()}"
        command = [converter, profile, "--headless", "--norestore", "--convert-to", target]
        _run([*command, "--outdir", str(folder), str(source)])
        result = folder / f"document.{target}"
        if not result.is_file():
            raise failure("corrupt", "LibreOffice cannot read it; the file is damaged")
        return result.read_bytes()


def _run(command: list[str]) -> None:
    # A session of its own: LibreOffice's launcher is a script, whose child must end with it.
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(_SECONDS)
    except subprocess.TimeoutExpired as error:
        detail = f"LibreOffice did not convert it within {_SECONDS} s"
        raise failure("timeout", detail, permanent=False) from error
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
