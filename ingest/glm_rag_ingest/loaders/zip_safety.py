"""Open ZIP files that may be hostile: bounded listing, bounded reading, names as they were meant.

Nothing is ever written to disk.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence

from glm_rag_ingest.loaders.base import failure
from glm_rag_ingest.loaders.encoding import decode_names

# A listing of this many entries costs about 2 s and 300 MB; the number may be a lie, so the
# marks that every entry needs are counted.
MOST_ENTRIES = 300_000
MOST_MEMBER_BYTES = 256 << 20
_ENTRY_MARK = b"PK\1\2"
_BLOCK = 1 << 20
_ENCRYPTED = 0x41  # bit 0: a password; bit 6: strong encryption (APPNOTE 4.4.4)
_UTF8_NAME = 0x800
_UNICODE_PATH = 0x7075  # extra field with the name in UTF-8 (APPNOTE 4.6.9)


def open_zip(data: bytes) -> zipfile.ZipFile:
    """The archive, listed but not unpacked.

    Raises:
        DocumentError: `corrupt`, or `unsupported` where it lists too many files.
    """
    if data.count(_ENTRY_MARK) > MOST_ENTRIES:
        raise failure("unsupported", f"an archive of more than {MOST_ENTRIES:,} files; split it")
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, OSError, ValueError, struct.error) as error:
        raise failure("corrupt", f"not a ZIP file, or damaged or cut off ({error})") from error


def read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Unpack one entry, whatever size it claims.

    Raises:
        DocumentError: `encrypted`, `unsupported` (too large, a link, a rare compression) or
            `corrupt`.
    """
    if entry.flag_bits & _ENCRYPTED:
        raise failure("encrypted", "it needs a password; unpack the archive")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise failure("unsupported", "a symbolic link, which is not followed")
    if entry.file_size > MOST_MEMBER_BYTES:
        raise _too_large()
    parts: list[bytes] = []
    try:
        with archive.open(entry) as file:
            while block := file.read(_BLOCK):
                parts.append(block)
                if len(parts) * _BLOCK > MOST_MEMBER_BYTES + _BLOCK:
                    raise _too_large()
    except NotImplementedError as error:
        raise failure("unsupported", f"{error}; unpack the archive") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise failure("corrupt", f"damaged inside the archive ({error})") from error
    return b"".join(parts)


def entry_names(entries: Sequence[zipfile.ZipInfo]) -> list[str]:
    """Names as they were meant; those without a mark of UTF-8 are judged together.

    Programs in China, Taiwan and Japan write their own encoding where the standard has cp437.
    """
    marked = {i: name for i, entry in enumerate(entries) if (name := _stated_name(entry))}
    unmarked = [
        entry.orig_filename.encode("cp437") for i, entry in enumerate(entries) if i not in marked
    ]
    guessed = iter(decode_names(unmarked))
    return [marked[i] if i in marked else next(guessed) for i in range(len(entries))]


def _stated_name(entry: zipfile.ZipInfo) -> str | None:
    if entry.flag_bits & _UTF8_NAME or entry.orig_filename.isascii():
        return entry.orig_filename
    extra = entry.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and field[:1] == b"\1" and len(field) > 5:
            is_of_this_name = struct.unpack_from("<I", field, 1)[0] == zlib.crc32(
                entry.orig_filename.encode("cp437")
            )
            return field[5:].decode("utf-8", "replace") if is_of_this_name else None
    return None


def _too_large() -> Exception:
    return failure("unsupported", f"larger than {MOST_MEMBER_BYTES >> 20} MiB unpacked; unpack it")
