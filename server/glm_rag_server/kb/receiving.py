"""Files of a multipart request, written to the disk as they arrive and never whole in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from glm_rag.knowledge.uploads import IncomingFile, distinct_names
from glm_rag_server.errors import ApiError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks
    from starlette.requests import Request

_BLOCK = 1 << 20  # bytes handed to a thread at once
_MOST_FILES = 1000
_FORM = b"multipart/form-data"
_BROKEN = "the upload broke off: send it again"


class Reception:
    """Takes the bytes of one request; what is written goes to `folder` under hidden names."""

    def __init__(self, boundary: bytes, folder: Path) -> None:
        self._folder = folder
        self._files: list[tuple[str, IncomingFile]] = []
        self._now: IncomingFile | None = None
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._is_whole = False
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._take_header,
            "on_header_value": self._take_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin_file,
            "on_part_data": self._take_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        self._parser = MultipartParser(boundary, callbacks)

    def feed(self, data: bytes) -> None:
        """Take bytes.

        Raises:
            ApiError: not a form with files.
            OSError: they cannot be written.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise ApiError(400, f"not a multipart form: {error}") from error

    def keep(self) -> list[tuple[str, Path]]:
        """Give all files their names: as they were sent, and where they lie now."""
        if not self._is_whole:
            raise ApiError(400, _BROKEN)
        if not self._files:
            raise ApiError(400, "no file in the form: send at least one, with a file name")
        names = [name for name, _ in self._files]
        targets = zip(self._files, distinct_names(names), strict=True)
        return [(name, file.keep(target)) for (name, file), target in targets]

    def discard(self) -> None:
        """Forget what was not kept."""
        for _, file in self._files:
            file.discard()

    # ------------------------------------------------------------ called by the parser

    def _begin_part(self) -> None:
        self._disposition = self._header = self._value = b""

    def _take_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _begin_file(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"filename" not in options:
            field = options.get(b"name", b"").decode("utf-8", "replace")
            raise ApiError(400, f"the field {field!r} is no file: options go into the address")
        name = options[b"filename"].decode("utf-8", "replace")
        if len(self._files) >= _MOST_FILES:
            raise ApiError(413, f"more than {_MOST_FILES} files: send them in several requests")
        self._now = IncomingFile(self._folder)
        self._files.append((name, self._now))

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._now is not None:
            self._now.write(data[start:end])

    def _end_part(self) -> None:
        if self._now is not None:
            self._now.finish()
        self._now = None

    def _end(self) -> None:
        self._is_whole = True


async def receive(request: Request, folder: Path) -> list[tuple[str, Path]]:
    """Write all files of a request into `folder`: each file's name as sent, and where it lies.

    How much may come, and how slowly, is the business of `limits`.

    Raises:
        ApiError: not a form with files, broken off, too large or too slow; nothing is left.
        OSError: they cannot be written; nothing is left.
    """
    reception = Reception(boundary_of(request), folder)
    try:
        await _feed(request, reception)
        return await to_thread.run_sync(reception.keep)
    except ClientDisconnect as error:
        raise ApiError(400, _BROKEN) from error
    finally:
        # Also where this task is cancelled: files of half an upload are nobody's.
        reception.discard()


async def _feed(request: Request, reception: Reception) -> None:
    block = bytearray()
    async for data in request.stream():
        block += data
        if len(block) >= _BLOCK:
            await to_thread.run_sync(reception.feed, bytes(block))
            block.clear()
    await to_thread.run_sync(reception.feed, bytes(block))


def boundary_of(request: Request) -> bytes:
    """What stands between the parts of a form.

    Raises:
        ApiError: it is no form, or does not say.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != _FORM:
        raise ApiError(415, "send files as multipart/form-data, as in curl -F files=@a.pdf")
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 70:  # RFC 2046
        raise ApiError(400, "the form names no boundary, or one longer than 70 characters")
    return boundary
