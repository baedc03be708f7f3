"""Electronic books (.epub): chapters in reading order, with their headings."""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator
from urllib.parse import unquote
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element

from glm_rag.errors import DocumentError
from glm_rag_ingest.loaders import html
from glm_rag_ingest.loaders.base import Extracted, clean_text, failure
from glm_rag_ingest.loaders.encoding import decode, lost_characters
from glm_rag_ingest.loaders.zip_safety import open_zip, read_entry

VERSION = "epub/1"
MEDIA_TYPE = "application/epub+zip"

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml", "")
_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
_BARE_AMPERSAND = re.compile(r"&(?!(?:amp|lt|gt|quot|apos|#\d+|#x[\da-fA-F]+);)")
_HEADING = re.compile(r"^#{1,6} ", re.MULTILINE)
_MOST_BYTES = 512 << 20
_MOST_TEXT = 64 << 20


def extract(data: bytes) -> Extracted:
    """Read the chapters in the order of the spine; a chapter without a heading gets that of the
    table of contents. Pictures, scripts and the contents page are left out.

    Raises:
        DocumentError: `corrupt`, `encrypted` (copy protection), or `unsupported` (too large).
    """
    with open_zip(data) as archive:
        book = _Book(archive)
        chapters, warnings = book.read()
        text = clean_text("\n\n".join(chapters))
        return Extracted(text, book.title, warnings=(*warnings, *lost_characters(text)))


class _Book:
    """An opened book: its package file says what is in it, in which order."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._entries = {entry.filename: entry for entry in archive.infolist()}
        self._num_bytes = 0
        container = self._xml(_CONTAINER)
        root = next((e.get("full-path", "") for e in _all(container, "rootfile")), "")
        self._folder = posixpath.dirname(root)
        self._package = self._xml(root)
        self._items = {item.get("id", ""): item for item in _all(self._package, "item")}
        title = next(_all(self._package, "title"), None)
        self.title = " ".join("".join(title.itertext()).split()) if title is not None else ""

    def read(self) -> tuple[list[str], list[str]]:
        """Texts of the chapters, and what could not be read."""
        paths = list(self._spine())
        if not paths:
            raise failure("corrupt", "the book lists no chapters")
        if protected := self._encrypted().intersection(paths):
            count = f"{len(protected)} of {len(paths)} chapters"
            raise failure("encrypted", f"copy protection on {count}; get a copy without it")
        headings = self._headings()
        chapters, warnings = [], []
        for path in paths:
            try:
                chapter = html.extract(self._bytes(path)).text
            except DocumentError as error:
                if error.reason == "unsupported":
                    raise
                warnings.append(f"{posixpath.basename(path)}: {error}")
                continue
            if chapter and path in headings and not _HEADING.search(chapter):
                chapter = f"# {headings[path]}\n\n{chapter}"
            chapters.append(chapter)
        if len(warnings) == len(paths):
            raise failure("corrupt", f"no chapter can be read; the first: {warnings[0]}")
        return chapters, warnings

    def _spine(self) -> Iterator[str]:
        for reference in _all(self._package, "itemref"):
            item = self._items.get(reference.get("idref", ""))
            if item is None or "nav" in item.get("properties", "").split():
                continue
            if item.get("media-type", "") in _PAGES:
                yield self._path(item.get("href", ""))

    def _headings(self) -> dict[str, str]:
        """The first label of each file in the table of contents, old (NCX) or new (nav)."""
        found: dict[str, str] = {}
        for item in self._items.values():
            path = self._path(item.get("href", ""))
            is_nav = "nav" in item.get("properties", "").split()
            if not is_nav and item.get("media-type") != "application/x-dtbncx+xml":
                continue
            try:
                contents = self._xml(path)
            except DocumentError:
                continue  # headings are a help, not the book
            for label, href in _nav_labels(contents) if is_nav else _ncx_labels(contents):
                target = posixpath.join(posixpath.dirname(path), unquote(href.partition("#")[0]))
                found.setdefault(posixpath.normpath(target), label)
        return {path: label for path, label in found.items() if label}

    def _encrypted(self) -> set[str]:
        if _ENCRYPTION not in self._entries:
            return set()
        references = _all(self._xml(_ENCRYPTION), "CipherReference")
        return {posixpath.normpath(unquote(e.get("URI", ""))) for e in references}

    def _path(self, href: str) -> str:
        return posixpath.normpath(posixpath.join(self._folder, unquote(href.partition("#")[0])))

    def _bytes(self, path: str) -> bytes:
        entry = self._entries.get(path)
        if entry is None:
            raise failure("corrupt", "named in the book, but not in it")
        data = read_entry(self._archive, entry)
        self._num_bytes += len(data)
        if self._num_bytes > _MOST_BYTES or len(data) > _MOST_TEXT:
            raise failure("unsupported", "unpacks to far more than a book holds; refused")
        return data

    def _xml(self, path: str) -> Element:
        """Parse without entities: what they could blow up to is nobody's book."""
        text = _DECLARATION.sub("", decode(self._bytes(path)))
        if "<!ENTITY" in text.upper():
            raise failure("corrupt", f"{path} declares entities, which books must not")
        try:
            return ET.fromstring(_BARE_AMPERSAND.sub("&amp;", text))
        except ET.ParseError as error:
            raise failure("corrupt", f"{path} is damaged ({error})") from error


def _all(root: Element, name: str) -> Iterator[Element]:
    return root.iterfind(f".//{{*}}{name}")


def _ncx_labels(contents: Element) -> Iterator[tuple[str, str]]:
    for point in _all(contents, "navPoint"):
        label = next(_all(point, "text"), None)
        target = next(_all(point, "content"), None)
        if label is not None and target is not None:
            yield " ".join((label.text or "").split()), target.get("src", "")


def _nav_labels(contents: Element) -> Iterator[tuple[str, str]]:
    for link in _all(contents, "a"):
        yield " ".join("".join(link.itertext()).split()), link.get("href", "")
