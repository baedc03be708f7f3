"""Mails (.eml): headers and body as text, attachments as members."""

from __future__ import annotations

import email
import mimetypes
import re
from collections.abc import Iterable, Iterator
from email.header import decode_header
from email.message import Message
from email.policy import compat32
from functools import partial

from glm_rag_ingest.loaders import html
from glm_rag_ingest.loaders.base import Extracted, Member, clean_text, failure
from glm_rag_ingest.loaders.encoding import decode, lost_characters

VERSION = "email_message/1"
MEDIA_TYPE = "message/rfc822"

_SHOWN = ("From", "To", "Cc", "Date", "Subject")
_KNOWN = frozenset(name.lower() for name in (*_SHOWN, "Message-ID", "Received", "MIME-Version"))
# Pictures of signatures and newsletters, and cryptographic signatures, are nobody's documents.
_LEFT_OUT = (
    "image/",
    "application/pgp-signature",
    "application/pkcs7-signature",
    "application/x-pkcs7-signature",
)
_ENCRYPTED = ("multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime")
_UNSAFE = re.compile(r"[\\/\0\r\n\t]+")
_LONGEST_NAME = 200
_LONGEST_HEADER = 10_000  # characters; decoding encoded words takes time squared


def extract(data: bytes) -> Extracted:
    """Read one mail; text bodies are preferred to HTML ones where it has both.

    Raises:
        DocumentError: `corrupt` where there are no mail headers, `encrypted` for sealed mails.
    """
    message = email.message_from_bytes(data, policy=compat32)
    names = {name.lower() for name, _ in message.raw_items()}
    if not names & _KNOWN:
        raise failure("corrupt", "not a mail: it has no headers")
    bodies, attached = _parts(message)
    if not bodies and not attached and message.get_content_type() in _ENCRYPTED:
        raise failure("encrypted", "the mail is encrypted; save it decrypted")
    headers = {name: header(message, name) for name in _SHOWN}
    text = message_text(headers, [_body(part) for part in bodies])
    return Extracted(
        text,
        headers["Subject"],
        warnings=lost_characters(text),
        members=_members(attached) if attached else (),
    )


def message_text(headers: dict[str, str], bodies: Iterable[str]) -> str:
    """`Name: value` lines of the headers that have one, then the bodies."""
    lines = "\n".join(f"{name}: {value}" for name, value in headers.items() if value)
    return clean_text("\n\n".join([lines, *bodies]))


def member_name(name: str, fallback: str) -> str:
    """An attachment's name as one part of a path."""
    safe = _UNSAFE.sub("_", name).strip(" .")
    return safe[-_LONGEST_NAME:] or fallback


def header(message: Message, name: str) -> str:
    """A header's text on one line; encoded words and raw bytes in any charset are read."""
    found = [value for key, value in message.raw_items() if key.lower() == name.lower()]
    return _decoded(str(found[0])[:_LONGEST_HEADER]) if found else ""


def _decoded(raw: str) -> str:
    octets = raw.encode("utf-8", "surrogateescape")
    raw = raw if octets.isascii() else decode(octets)
    try:
        pieces = decode_header(raw)
    except ValueError:  # broken base64
        pieces = [(raw, None)]
    text = "".join(
        piece if isinstance(piece, str) else decode(piece, charset) for piece, charset in pieces
    )
    return " ".join(text.split())


def _parts(message: Message) -> tuple[list[Message], list[Message]]:
    """The parts that are shown as the mail's text, and those that hang on it."""
    bodies: list[Message] = []
    attached: list[Message] = []
    todo = [message]
    while todo:
        part = todo.pop()
        kind = part.get_content_type()
        if kind == "multipart/alternative":
            todo.extend(reversed(_best_alternatives(part)))
        elif kind == "multipart/related":
            page, *rest = _children(part) or [Message()]
            todo.extend([child for child in reversed(rest) if child.get_filename()] + [page])
        elif part.is_multipart() and part.get_content_maintype() == "multipart":
            todo.extend(reversed(_children(part)))
        elif kind in ("text/plain", "text/html") and not _is_attachment(part):
            bodies.append(part)
        elif not kind.startswith(_LEFT_OUT) and kind not in _ENCRYPTED:
            attached.append(part)
    return bodies, attached


def _best_alternatives(part: Message) -> list[Message]:
    """The plain text if there is any, else the last form, which is the richest (RFC 2046 5.1.4)."""
    children = _children(part)
    for child in children:
        if child.get_content_type() == "text/plain" and _octets(child).strip():
            return [child]
    readable = ("text/html", "multipart/related", "multipart/mixed", "multipart/alternative")
    texts = [child for child in children if child.get_content_type() in readable]
    return texts[-1:] or children[-1:]


def _children(part: Message) -> list[Message]:
    payload = part.get_payload()
    return [child for child in payload if isinstance(child, Message)] if part.is_multipart() else []


def _is_attachment(part: Message) -> bool:
    return part.get_content_disposition() == "attachment" or bool(part.get_filename())


def _octets(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _body(part: Message) -> str:
    octets, charset = _octets(part), part.get_content_charset()
    if part.get_content_type() == "text/html":
        return html.extract(octets, charset).text
    text = decode(octets, charset).replace("\r\n", "\n") if octets else ""
    return _unflowed(text) if part.get_param("format") == "flowed" else text


def _unflowed(text: str) -> str:
    """Join the lines that `format=flowed` broke, which end in a space (RFC 3676)."""
    return re.sub(r"(?<=[^\s-]) \n(?=[^\s>])", " ", text)


def _members(attached: list[Message]) -> Iterator[Member]:
    for number, part in enumerate(attached, start=1):
        if part.get_content_maintype() == "message" and (inner := _children(part)):
            title = header(inner[0], "Subject") or f"message {number}"
            yield Member(f"{member_name(title, 'message')}.eml", partial(_serialised, inner[0]))
            continue
        ending = mimetypes.guess_extension(part.get_content_type()) or ".bin"
        name = _decoded(part.get_filename() or "")
        yield Member(member_name(name, f"attachment-{number}{ending}"), partial(_octets, part))


def _serialised(message: Message) -> bytes:
    try:
        return message.as_bytes()
    except (UnicodeError, LookupError, ValueError, KeyError) as error:
        raise failure("corrupt", f"the attached mail is damaged ({error})") from error
