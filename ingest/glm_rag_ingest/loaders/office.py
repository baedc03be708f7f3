"""What Office files share: ZIP archives of XML, refused in one line when they are not."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from glm_rag_ingest.loaders.base import failure

OLE_MAGIC = bytes.fromhex("d0cf11e0a1b11ae1")
# Deflate reaches 1,032:1, and real documents stay under 50:1. Parsers hold what they unpack.
_MOST_RATIO = 200
_FREE_BYTES = 100_000_000
_MOST_BYTES = 2 << 30
_MOST_MEMBERS = 20_000
_LOCAL_HEADER = 30  # bytes before a member's name (APPNOTE.TXT, 4.3.7)
_BLOCK = 1 << 20
_ENCRYPTED_STREAM = "EncryptedPackage".encode("utf-16-le")


def is_encrypted(data: bytes) -> bool:
    """Whether an OLE container holds a document that was encrypted with a password."""
    return data.startswith(OLE_MAGIC) and _ENCRYPTED_STREAM in data


def check_archive(data: bytes, suffix: str, *, old_suffix: str = "") -> None:
    """Refuse whatever is not a whole, unencrypted archive of bearable size.

    Args:
        suffix: the format's usual extension, for the message.
        old_suffix: the extension of its OLE predecessor, if it has one.

    Raises:
        DocumentError: `encrypted`, `corrupt`, or `unsupported` for an archive bomb.
    """
    if is_encrypted(data):
        raise encrypted()
    if old_suffix and data.startswith(OLE_MAGIC):
        detail = f"an old {old_suffix} file under a {suffix} name; save it as {suffix}"
        raise failure("corrupt", detail)
    if not data.startswith(b"PK"):
        raise failure("corrupt", f"it does not begin as {suffix} files do")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_odf_password(archive)
    except zipfile.BadZipFile as error:
        raise failure("corrupt", f"the {suffix} file is damaged or cut off") from error
    if any(member.flag_bits & 1 for member in members):
        raise encrypted()
    _check_size(data, members)


def encrypted() -> Exception:
    """The failure of every document with a password."""
    return failure("encrypted", "the document needs a password; save it without one")


def _check_odf_password(archive: zipfile.ZipFile) -> None:
    if "META-INF/manifest.xml" not in archive.namelist():
        return
    with archive.open("META-INF/manifest.xml") as manifest:
        if b"encryption-data" in manifest.read(_BLOCK):
            raise encrypted()


def _check_size(data: bytes, members: list[zipfile.ZipInfo]) -> None:
    most = min(_MOST_BYTES, max(_FREE_BYTES, _MOST_RATIO * len(data)))
    total = sum(member.file_size for member in members)
    if total <= most and len(members) <= _MOST_MEMBERS:
        total = 0
        for member in members:  # the sizes an archive declares may be lies
            total += _inflated_size(data, member, most - total)
    if total > most or len(members) > _MOST_MEMBERS:
        detail = f"refused: {len(data):,} bytes that unpack to more than {most:,}"
        raise failure("unsupported", detail)


def _inflated_size(data: bytes, member: zipfile.ZipInfo, most: int) -> int:
    """Bytes a member really unpacks to; stops soon after `most`."""
    start = member.header_offset
    name_and_extra = data[start + 26 : start + _LOCAL_HEADER]
    if member.compress_type != zipfile.ZIP_DEFLATED or len(name_and_extra) < 4:
        return member.file_size
    start += _LOCAL_HEADER + sum(struct.unpack("<HH", name_and_extra))
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    rest: bytes | memoryview = memoryview(data)[start : start + member.compress_size]
    size = 0
    try:
        while rest and size <= most and not inflate.eof:
            size += len(inflate.decompress(rest, _BLOCK))
            rest = inflate.unconsumed_tail
    except zlib.error:
        return size  # damaged: the parser will say so
    return size
