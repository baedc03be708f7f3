"""A book reads in the order of its spine, with its chapters' headings."""

from __future__ import annotations

import io
import zipfile

import pytest

from glm_rag.errors import DocumentError
from glm_rag_ingest.loaders.epub import extract

CONTAINER = (
    '<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
    '<rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
)
XHTML = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml">'


def page(body, head="<title/>"):
    return f"{XHTML}<head>{head}</head><body>{body}</body></html>"


def opf(items, spine, title="书名 &amp; more"):
    listed = "".join(
        f'<item id="{key}" href="{href}" media-type="{kind}" {more}/>'
        for key, href, kind, more in items
    )
    order = "".join(f'<itemref idref="{key}"/>' for key in spine)
    return (
        '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
        f"<dc:title>{title}</dc:title></metadata><manifest>{listed}</manifest>"
        f"<spine>{order}</spine></package>"
    )


ITEMS = [
    ("one", "text/ch%201.xhtml", "application/xhtml+xml", ""),
    ("two", "text/two.xhtml", "application/xhtml+xml", ""),
    ("toc", "nav.xhtml", "application/xhtml+xml", 'properties="nav"'),
    ("ncx", "toc.ncx", "application/x-dtbncx+xml", ""),
    ("css", "a.css", "text/css", ""),
]
NAV = page('<nav><ol><li><a href="text/ch%201.xhtml#x">Chapter <b>one</b></a></li></ol></nav>')
NCX = (
    '<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap><navPoint><navLabel><text>Second'
    '</text></navLabel><content src="text/two.xhtml"/></navPoint></navMap></ncx>'
)


def book(changes=None):
    files = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OEBPS/book.opf": opf(ITEMS, ["toc", "two", "one"]),
        "OEBPS/text/ch 1.xhtml": page("<p>First text.</p><script>evil()</script>"),
        "OEBPS/text/two.xhtml": page("<h2>Own heading</h2><p>第二章的内容。</p>"),
        "OEBPS/nav.xhtml": NAV,
        "OEBPS/toc.ncx": NCX,
    }
    files.update(changes or {})
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            if text is not None:
                archive.writestr(name, text)
    return data.getvalue()


def test_chapters_come_in_reading_order_with_headings():
    found = extract(book())
    assert found.title == "书名 & more"
    assert found.text == "## Own heading\n\n第二章的内容。\n\n# Chapter one\n\nFirst text."
    assert found.warnings == ()


def test_headings_come_from_the_old_contents_too():
    found = extract(book({"OEBPS/text/two.xhtml": page("<p>Bare.</p>")}))
    assert found.text.startswith("# Second\n\nBare.")


def test_empty_elements_of_xml_do_not_swallow_the_page():
    body = '<p>a</p><script src="x"/><a id="y"/><p>b <i/>c</p><div class="z" /><p>d</p>'
    found = extract(book({"OEBPS/text/ch 1.xhtml": page(body, "<title/><style/>")}))
    assert found.text.endswith("# Chapter one\n\na\n\nb c\n\nd")


def test_a_missing_chapter_is_a_warning():
    found = extract(book({"OEBPS/text/two.xhtml": None}))
    assert found.text == "# Chapter one\n\nFirst text."
    assert found.warnings == ("two.xhtml: corrupt: named in the book, but not in it",)


def encryption(path):
    return (
        '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container" '
        'xmlns:enc="http://www.w3.org/2001/04/xmlenc#"><enc:EncryptedData><enc:CipherData>'
        f'<enc:CipherReference URI="{path}"/></enc:CipherData></enc:EncryptedData></encryption>'
    )


def test_copy_protection_is_told_and_obfuscated_fonts_are_none():
    with pytest.raises(DocumentError, match=r"^encrypted: copy protection on 1 of 2 chapters"):
        extract(book({"META-INF/encryption.xml": encryption("OEBPS/text/two.xhtml")}))
    assert extract(book({"META-INF/encryption.xml": encryption("OEBPS/a.otf")})).text


LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE p [<!ENTITY a "haha">'
    + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]><package><metadata/>&i;</package>"
)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"META-INF/container.xml": None}, "corrupt: named in the book"),
        ({"META-INF/container.xml": "<container"}, "corrupt: META-INF/container.xml is damaged"),
        ({"OEBPS/book.opf": LAUGHS}, "corrupt: OEBPS/book.opf declares entities"),
        ({"OEBPS/book.opf": LAUGHS.encode("utf-16")}, "corrupt: OEBPS/book.opf declares entities"),
        ({"OEBPS/book.opf": opf([], ["one"])}, "corrupt: the book lists no chapters"),
        ({"OEBPS/text/two.xhtml": None, "OEBPS/text/ch 1.xhtml": None}, "corrupt: no chapter can"),
        ({"OEBPS/book.opf": " " * (65 << 20)}, "unsupported: unpacks to far more"),
        ({"OEBPS/text/two.xhtml": "<p>" + " " * (65 << 20)}, "unsupported: unpacks to far more"),
        ({"OEBPS/book.opf": "<a>" * 100_000}, "corrupt: OEBPS/book.opf is damaged"),
    ],
)
def test_a_book_that_cannot_be_read_says_why(changes, reason):
    with pytest.raises(DocumentError) as caught:
        extract(book(changes))
    assert str(caught.value).startswith(reason)


def test_a_chapter_outside_the_archive_is_not_looked_for(tmp_path):
    items = [("one", "../../../../etc/passwd", "text/html", "")]
    with pytest.raises(DocumentError, match=r"^corrupt: no chapter can be read"):
        extract(book({"OEBPS/book.opf": opf(items, ["one"])}))
