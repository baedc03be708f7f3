"""Outlook messages (.msg): headers and body as text, attachments as members ([MS-OXMSG])."""

from __future__ import annotations

import email
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from glm_rag.errors import MissingDependencyError
from glm_rag_ingest.loaders import compressed_rtf, html, rtf
from glm_rag_ingest.loaders.base import Extracted, Member, failure
from glm_rag_ingest.loaders.email_message import header, member_name, message_text
from glm_rag_ingest.loaders.encoding import decode, lost_characters

if TYPE_CHECKING:
    from olefile import OleFileIO

VERSION = "outlook/1"
MEDIA_TYPE = "application/vnd.ms-outlook"

_MAGIC = bytes.fromhex("d0cf11e0a1b11ae1")
# Property ids of [MS-OXPROPS].
_SUBJECT, _SENDER, _SENDER_ADDRESS, _SENDER_SMTP = "0037", "0C1A", "0C1F", "5D01"
_TO, _CC, _BODY, _HTML, _RTF = "0E04", "0E03", "1000", "1013", "1009"
_TRANSPORT_HEADERS = "007D"
_LONG_NAME, _SHORT_NAME, _DISPLAY_NAME, _MIME = "3707", "3704", "3001", "370E"
_DATA, _EMBEDDED = "37010102", "3701000D"
_SENT, _DELIVERED, _CODE_PAGE, _INTERNET_CODE_PAGE = 0x0039, 0x0E06, 0x3FFD, 0x3FDE
_ATTACHMENT = "__attach_version1.0_#"
_PICTURES = frozenset((".png", ".jpg", ".jpeg", ".gif", ".bmp", ".emf", ".wmf", ".tif", ".tiff"))
_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)
_MOST_LEVELS = 8

_Path = tuple[str, ...]


def extract(data: bytes) -> Extracted:
    """Read a saved message: the plain body, else the HTML one, else the RTF one.

    Raises:
        DocumentError: `corrupt` where it is no Outlook message.
    """
    if not data.startswith(_MAGIC):
        raise failure("corrupt", "not an Outlook message: it does not begin as a .msg file does")
    try:
        import olefile
    except ImportError as error:
        raise MissingDependencyError.for_extra("olefile", "documents") from error
    message = _Message(olefile.OleFileIO(data))
    if not message.is_message():
        raise failure("corrupt", "an OLE file, but not an Outlook message")
    text = message.text()
    members = message.members() if message.attachments() else ()
    return Extracted(
        text, message.string(_SUBJECT), warnings=lost_characters(text), members=members
    )


class _Message:
    """The message in one storage of the file; attached messages are in storages of their own."""

    def __init__(self, ole: OleFileIO, path: _Path = ()) -> None:
        self._ole = ole
        self._path = path
        self._fixed = self._properties()

    def is_message(self) -> bool:
        return bool(self._fixed) or self._ole.exists("__nameid_version1.0")

    def text(self) -> str:
        name, address = self.string(_SENDER), self.string(_SENDER_SMTP) or self._address()
        sender = f"{name} <{address}>" if address and address != name else name
        headers = {
            "From": sender,
            "To": self.string(_TO),
            "Cc": self.string(_CC),
            "Date": self._date(),
            "Subject": self.string(_SUBJECT),
        }
        return message_text(headers, [self._body()])

    def string(self, name: str, path: _Path = ()) -> str:
        """A text property, in UTF-16 or in the message's code page."""
        wide = self._stream((*path, f"__substg1.0_{name}001F"))
        if wide:
            return wide.decode("utf-16-le", "replace").rstrip("\0").strip()
        narrow = self._stream((*path, f"__substg1.0_{name}001E"))
        return decode(narrow.rstrip(b"\0"), self._charset()).strip() if narrow else ""

    def attachments(self) -> list[_Path]:
        depth = len(self._path)
        found = {
            tuple(entry[: depth + 1])
            for entry in self._ole.listdir()
            if tuple(entry[:depth]) == self._path
            and len(entry) > depth + 1
            and entry[depth].startswith(_ATTACHMENT)
        }
        return sorted(path[depth:] for path in found)

    def members(self, inside: str = "") -> Iterator[Member]:
        for number, path in enumerate(self.attachments(), start=1):
            given = next(
                filter(None, (self.string(n, path) for n in (_LONG_NAME, _SHORT_NAME))), ""
            )
            name = member_name(given or self.string(_DISPLAY_NAME, path), f"attachment-{number}")
            embedded = (*self._path, *path, f"__substg1.0_{_EMBEDDED}")
            if self._ole.exists(list(embedded)) and len(embedded) <= 2 * _MOST_LEVELS:
                yield from _Message(self._ole, embedded)._as_members(f"{inside}{name}")
            elif not self._is_picture(name, path):
                stream = (*path, f"__substg1.0_{_DATA}")
                yield Member(f"{inside}{name}", partial(self._stream, stream))

    def _as_members(self, name: str) -> Iterator[Member]:
        yield Member(f"{name}.txt", lambda: self.text().encode())
        yield from self.members(f"{name}/")

    def _is_picture(self, name: str, path: _Path) -> bool:
        is_image = self.string(_MIME, path).lower().startswith("image/")
        return is_image or PurePosixPath(name).suffix.lower() in _PICTURES

    def _body(self) -> str:
        if body := self.string(_BODY):
            return body
        page = self._stream((f"__substg1.0_{_HTML}0102",)) or self.string(_HTML).encode()
        if page:
            return html.extract(page, self._charset(_INTERNET_CODE_PAGE)).text
        packed = self._stream((f"__substg1.0_{_RTF}0102",))
        return rtf.to_text(compressed_rtf.decompress(packed)) if packed else ""

    def _address(self) -> str:
        address = self.string(_SENDER_ADDRESS)
        return address if "@" in address else ""  # else the path in an Exchange directory

    def _date(self) -> str:
        stated = email.message_from_string(self.string(_TRANSPORT_HEADERS))
        if date := header(stated, "Date"):
            return date
        ticks = self._fixed.get(_SENT) or self._fixed.get(_DELIVERED)
        if not ticks:
            return ""
        try:
            sent = _EPOCH + timedelta(microseconds=ticks // 10)
        except OverflowError:
            return ""
        return sent.strftime("%Y-%m-%d %H:%M UTC")

    def _charset(self, first: int = _CODE_PAGE) -> str | None:
        page = self._fixed.get(first) or self._fixed.get(_CODE_PAGE)
        page = page or self._fixed.get(_INTERNET_CODE_PAGE)
        if not page:
            return None
        return "utf-8" if page & 0xFFFF == 65001 else f"cp{page & 0xFFFF}"

    def _properties(self) -> dict[int, int]:
        """Values of fixed length by property id, out of 16-byte entries after a header."""
        data = self._stream(("__properties_version1.0",))
        start = 24 if self._path else 32
        return {
            tag >> 16: value
            for tag, _, value in struct.iter_unpack("<IIQ", data[start : _whole(len(data), start)])
        }

    def _stream(self, path: _Path) -> bytes:
        full = [*self._path, *path]
        if not self._ole.exists(full):
            return b""
        data: bytes = self._ole.openstream(full).read()
        return data


def _whole(length: int, start: int) -> int:
    return start + max(0, length - start) // 16 * 16
