"""OpenDocument text is read from its XML; old Office files by LibreOffice, or honestly not."""

from __future__ import annotations

import io
import stat

import pytest

from glm_rag.errors import DocumentError
from glm_rag_ingest.loaders import legacy

NAMES = " ".join(
    f'xmlns:{short}="urn:oasis:names:tc:opendocument:xmlns:{long}:1.0"'
    for short, long in [
        ("office", "office"),
        ("text", "text"),
        ("table", "table"),
        ("draw", "drawing"),
    ]
)


@pytest.fixture
def odt(make_zip, read):
    def load_body(body, head=""):
        content = (
            f"{head}<office:document-content {NAMES}><office:body><office:text>{body}"
            "</office:text></office:body></office:document-content>"
        )
        meta = '<m xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Rules</dc:title></m>'
        return read("a.odt", make_zip({"content.xml": content, "meta.xml": meta}))

    return load_body


def test_headings_lists_spaces_and_footnotes_are_kept(odt):
    document = odt(
        '<text:h text:outline-level="2">Part <text:span>one</text:span></text:h>'
        '<text:p>A<text:s text:c="2"/>b<text:tab/>c<text:line-break/>d<text:note>'
        "<text:note-citation>1</text:note-citation><text:note-body><text:p>Why.</text:p>"
        "</text:note-body></text:note> end</text:p><text:list><text:list-item><text:p>one</text:p>"
        "<text:list><text:list-item><text:p>deep</text:p></text:list-item></text:list>"
        "</text:list-item><text:list-item><text:p>two</text:p></text:list-item></text:list>"
        "<text:tracked-changes><text:p>gone</text:p></text:tracked-changes>"
        "<text:section><text:p>In a section.</text:p></text:section>"
    )
    assert document.title == "Rules"
    assert document.text == (
        "## Part one\n\nA  b\tc\nd[1] end\n\n[1] Why.\n\n- one\n  - deep\n- two\n\nIn a section."
    )


def test_a_table_has_its_rows_and_not_those_of_tables_inside(odt):
    cell = "<table:table-cell><text:p>{}</text:p></table:table-cell>"
    inner = f"<table:table><table:table-row>{cell.format('in')}</table:table-row></table:table>"
    document = odt(
        f"<table:table><table:table-header-rows><table:table-row>{cell.format('a')}"
        f"{cell.format('b')}</table:table-row></table:table-header-rows><table:table-row>"
        f"<table:table-cell>{inner}</table:table-cell>{cell.format('x|y')}"
        '<table:table-cell table:number-columns-repeated="16000"/></table:table-row></table:table>'
    )
    assert document.text == "| a | b |\n| --- | --- |\n| in | x\\|y |"


def test_entities_in_an_odt_do_not_grow(odt):
    bomb = '<!DOCTYPE a [<!ENTITY b "xxxxxxxxxx"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]>'
    assert "xxx" not in odt("<text:p>Hello &c; there</text:p>", bomb).text


def test_an_odt_that_cannot_be_read_says_why(reason_of, make_zip):
    manifest = "<manifest><file-entry><encryption-data/></file-entry></manifest>"
    assert reason_of("a.odt", make_zip({"META-INF/manifest.xml": manifest})) == "encrypted"
    assert reason_of("b.odt", make_zip({"mimetype": "x"})) == "corrupt"
    assert reason_of("c.odt", make_zip({"content.xml": "<broken"})) == "corrupt"
    assert reason_of("d.odt", b"PK cut") == "corrupt"


# ---------------------------------------------------------------- old Office files


OLE = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(512)
SLIDES = OLE + "PowerPoint Document".encode("utf-16-le")


@pytest.mark.parametrize(
    ("name", "data", "target"), [("a.doc", OLE, "docx"), ("a.ppt", SLIDES, "pptx")]
)
def test_without_libreoffice_an_old_file_says_what_to_do(read, monkeypatch, name, data, target):
    monkeypatch.setattr(legacy, "_converter", lambda: None)
    with pytest.raises(
        DocumentError, match=rf"^unsupported: .*LibreOffice.* save it as \.{target}$"
    ):
        read(name, data)


@pytest.fixture
def converter(tmp_path, monkeypatch):
    """A script in place of LibreOffice, which takes the options it would get."""

    def install(body):
        script = tmp_path / "soffice"
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(legacy, "_converter", lambda: str(script))

    return install


def test_with_libreoffice_an_old_file_is_converted_and_read(read, converter, tmp_path):
    import docx

    made = docx.Document()
    made.add_paragraph("Converted.")
    made.save(str(tmp_path / "made.docx"))
    # $5 is the format, $7 the folder for the result
    converter(f'[ "$4" = --convert-to ] && cp {tmp_path}/made.docx "$7/document.$5"')
    assert read("a.doc", OLE).text == "Converted."


def test_a_converter_that_fails_or_hangs_is_a_failure(reason_of, converter, monkeypatch):
    converter("exit 1")
    assert reason_of("a.doc", OLE) == "corrupt"
    monkeypatch.setattr(legacy, "_SECONDS", 0.2)
    converter("sleep 30")
    assert reason_of("a.doc", OLE) == "timeout"


def test_an_encrypted_old_file_is_encrypted(reason_of):
    data = io.BytesIO(OLE + "EncryptedPackage".encode("utf-16-le")).getvalue()
    assert reason_of("a.doc", data) == "encrypted"
