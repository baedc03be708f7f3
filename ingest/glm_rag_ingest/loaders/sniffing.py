"""What a file is by its first bytes and its inner names, where its own name is wrong or missing."""

from __future__ import annotations

import re

from glm_rag.errors import DocumentError
from glm_rag_ingest.loaders.encoding import looks_like_text
from glm_rag_ingest.loaders.zip_safety import open_zip, read_entry

# Loader of each kind, and how the kind is called in a warning.
CALLED = {
    "archive": "a ZIP archive",
    "delimited": "a table in plain text",
    "docx": "a Word document",
    "email_message": "a mail",
    "epub": "an electronic book",
    "excel": "a spreadsheet",
    "html": "a web page",
    "image": "a picture",
    "legacy": "an old Office document",
    "odt": "an OpenDocument text",
    "outlook": "an Outlook message",
    "pdf": "a PDF",
    "pptx": "a PowerPoint presentation",
    "rtf": "an RTF document",
}
_OLE_MAGIC = bytes.fromhex("d0cf11e0a1b11ae1")
_ZIP_MAGIC = (b"PK\3\4", b"PK\5\6")
_IMAGE_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"BM")
_BEGINNINGS = ((b"%PDF-", "pdf"), (b"{\\rtf", "rtf"))
_OFFICE_FOLDERS = {"word/": "docx", "ppt/": "pptx", "xl/": "excel"}
_OPEN_FORMATS = (
    (b"application/epub+zip", "epub"),
    (b"application/vnd.oasis.opendocument.text", "odt"),
    (b"application/vnd.oasis.opendocument.spreadsheet", "excel"),
    (b"application/vnd.oasis.opendocument", "legacy"),
)
_OLE_STREAMS = (
    ("__properties_version1.0", "outlook"),
    ("WordDocument", "legacy"),
    ("PowerPoint Document", "legacy"),
    ("Workbook", "excel"),
    ("Book", "excel"),
)
_HTML = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.{0,500}?-->\s*)*<(?:!doctype\s+html|html[\s>])",
    re.IGNORECASE | re.DOTALL,
)
_MAIL = re.compile(
    rb"(?:From [^\n]*\n)?(?:[\w-]+:[^\n]*\n(?:[ \t][^\n]*\n)*)*?"
    rb"(?:received|return-path|mime-version|message-id|delivered-to):",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(rb"\A[^\n]*[\t,;]")
_HEAD_BYTES = 4096
_SHORTEST_PAGE = 2048  # bytes
# Text formats hold whatever their name says: pages and pictures under their names are not looked
# for.
_TEXTS = frozenset(
    ("text", "markdown", "restructured", "source_code", "delimited", "json_lines", "notebook")
)


def may_be_known(head: bytes) -> bool:
    """Whether the first bytes are those of a kind that is read whatever its name."""
    return head.lstrip().startswith((b"%PDF-", b"{\\rtf", *_ZIP_MAGIC, _OLE_MAGIC)) or bool(
        _HTML.match(head)
    )


def by_content(data: bytes) -> str | None:
    """The loader of a file without an extension; None for binary data of no known kind."""
    if kind := _kind(data):
        return kind
    if _MAIL.match(data[:_HEAD_BYTES]):
        return "email_message"
    if not looks_like_text(data):
        return None
    bare = data.strip()
    if bare[:1] + bare[-1:] in (b"{}", b"[]"):
        return "json_lines"
    return "source_code:shell" if data.startswith(b"#!") else "text"


def against_name(named: str | None, data: bytes) -> str | None:
    """The loader for a file that is not what its extension says; None where it may well be.

    `named` is the loader of the extension, None for an unknown one.
    """
    kind = _kind(data)
    if kind is None:
        if named == "outlook" and _MAIL.match(data[:_HEAD_BYTES]):
            return "email_message"
        is_table = named == "excel" and looks_like_text(data) and _SEPARATOR.search(data)
        return "delimited" if is_table else None
    if kind == named or (kind == "archive" and named != "archive" and named not in _TEXTS):
        return None
    if kind in ("html", "image") and (named is None or named.partition(":")[0] in _TEXTS):
        return "html" if kind == "html" and named is None else None
    if named == "html" and kind == "image":
        return None
    if named == "pdf" and kind == "html" and len(data) < _SHORTEST_PAGE:
        return None  # what a server sends in place of the file: a login or error page
    return kind


def _kind(data: bytes) -> str | None:
    head = data[:_HEAD_BYTES]
    if head.startswith(_ZIP_MAGIC):
        return _zip_kind(data)
    if head.startswith(_OLE_MAGIC):
        return _ole_kind(data)
    if head.startswith(_IMAGE_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "image"
    if _HTML.match(head):
        return "html"
    bare = head.lstrip()
    return next((kind for mark, kind in _BEGINNINGS if bare.startswith(mark)), None)


def _zip_kind(data: bytes) -> str | None:
    try:
        with open_zip(data) as archive:
            names = set(archive.namelist())
            kind = read_entry(archive, archive.getinfo("mimetype")) if "mimetype" in names else b""
    except DocumentError:
        return None
    for mark, loader in _OPEN_FORMATS:
        if kind.strip().startswith(mark):
            return loader
    if "[Content_Types].xml" in names:
        for folder, loader in _OFFICE_FOLDERS.items():
            if any(name.startswith(folder) for name in names):
                return loader
    return "archive"


def _ole_kind(data: bytes) -> str | None:
    try:
        import olefile

        with olefile.OleFileIO(data) as ole:
            return next((kind for name, kind in _OLE_STREAMS if ole.exists(name)), None)
    except (ImportError, OSError, ValueError, IndexError):
        return None
