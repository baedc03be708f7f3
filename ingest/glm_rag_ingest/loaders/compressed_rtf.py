"""The compression of RTF bodies in Outlook messages ([MS-OXRTFCP])."""

from __future__ import annotations

import struct

from glm_rag_ingest.loaders.base import failure

_HEADER = struct.Struct("<IIII")  # compressed size, raw size, kind, checksum
_COMPRESSED, _RAW = 0x75465A4C, 0x414C454D
_WINDOW = 4096
# What the dictionary holds at the beginning (section 2.1.2.1).
_PRELOADED = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript "
    rb"\fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0" + b"\r\n"
    rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)


def decompress(data: bytes) -> bytes:
    """The RTF. Raises `DocumentError` (`corrupt`) where it is not compressed in this way."""
    if len(data) < _HEADER.size:
        raise failure("corrupt", "the message's RTF body is cut off")
    size, raw_size, kind, _ = _HEADER.unpack_from(data)
    body = data[_HEADER.size : size + 4]
    if kind == _RAW:
        return body[:raw_size]
    if kind != _COMPRESSED:
        raise failure("corrupt", "the message's RTF body is damaged")
    return _unpack(body, raw_size)


def _unpack(body: bytes, raw_size: int) -> bytes:
    """Tokens in groups of eight: literals, and references into the last 4096 bytes written."""
    window = bytearray(_PRELOADED.ljust(_WINDOW, b"\0"))
    out = bytearray()
    write, position = len(_PRELOADED), 0
    while position < len(body) and len(out) < raw_size:
        control, position = body[position], position + 1
        for bit in range(8):
            is_reference = control >> bit & 1
            token = body[position : position + 1 + is_reference]
            position += 1 + is_reference
            if len(token) <= is_reference:
                return bytes(out)
            run = token
            if is_reference:
                offset, length = token[0] << 4 | token[1] >> 4, (token[1] & 15) + 2
                if offset == write % _WINDOW:
                    return bytes(out)
                run = b""
            for step in range(length if is_reference else 1):
                byte = window[(offset + step) % _WINDOW] if is_reference else run[0]
                window[write % _WINDOW] = byte
                out.append(byte)
                write += 1
    return bytes(out)
