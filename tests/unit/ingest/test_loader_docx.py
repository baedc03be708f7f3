"""Word documents read as they are printed: lists with their numbers, notes where they belong."""

from __future__ import annotations

import io
import zipfile

import pytest

from glm_rag_ingest.loaders import load
from glm_rag_ingest.loaders.docx_numbering import format_number

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


@pytest.fixture
def word(tmp_path):
    """Save a document made by a function and load it."""
    import docx

    def save_and_load(build):
        document = docx.Document()
        build(document)
        path = tmp_path / "a.docx"
        document.save(str(path))
        return load(path).documents[0]

    return save_and_load


def test_word_headings_lists_and_tables_come_in_order(word):
    def build(document):
        document.core_properties.title = "Rules"
        document.add_heading("Top", 0)
        document.add_paragraph("Intro.")
        document.add_heading("Part", 2)
        document.add_paragraph("one", style="List Bullet")
        document.add_paragraph("two", style="List Number")
        table = document.add_table(2, 3)
        for cell, text in zip(table.rows[0].cells, "abc", strict=True):
            cell.text = text
        table.cell(1, 0).merge(table.cell(1, 1)).text = "wide"
        table.cell(1, 2).text = "x\ny"
        document.add_paragraph("End.")

    document = word(build)
    assert document.title == "Rules"
    assert document.text == (
        "# Top\n\nIntro.\n\n## Part\n\n- one\n1. two\n\n| a | b | c |\n| --- | --- | --- |\n"
        "| wide |  | x y |\n\nEnd."
    )


def test_word_content_controls_are_read_and_deleted_text_and_contents_are_not(word):
    from docx.oxml import parse_xml

    ns = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'

    def build(document):
        from docx.enum.style import WD_STYLE_TYPE

        document.styles.add_style("toc 1", WD_STYLE_TYPE.PARAGRAPH)
        document.add_paragraph("Part ........ 7", style="toc 1")
        control = f"<w:sdt {ns}><w:sdtContent><w:p><w:r><w:t>In a control.</w:t></w:r></w:p>"
        body = document.element.body
        body.insert(1, parse_xml(f"{control}</w:sdtContent></w:sdt>"))
        change = (
            f"<w:p {ns}><w:pPr><w:tabs><w:tab/></w:tabs></w:pPr><w:r><w:t>New</w:t></w:r>"
            "<w:ins><w:r><w:t>er</w:t></w:r></w:ins><w:del><w:r><w:delText>old</w:delText></w:r>"
            "</w:del><w:r><w:tab/><w:t>end</w:t></w:r></w:p>"
        )
        body.insert(2, parse_xml(change))

    assert word(build).text == "In a control.\n\nNewer\tend"


def test_a_broken_word_file_says_what_it_is(reason_of):
    ole = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(512)
    assert reason_of("a.docx", ole) == "corrupt"
    assert reason_of("a.docx", ole + "EncryptedPackage".encode("utf-16-le")) == "encrypted"
    assert reason_of("a.docx", b"PK\3\4 cut off") == "corrupt"
    assert reason_of("a.docx", b"hello") == "corrupt"


def level(depth, start, kind, text, more=""):
    return (
        f'<w:lvl w:ilvl="{depth}"><w:start w:val="{start}"/><w:numFmt w:val="{kind}"/>{more}'
        f'<w:lvlText w:val="{text}"/></w:lvl>'
    )


NUMBERING = f"""<w:numbering {W}>
<w:abstractNum w:abstractNumId="0">{level(0, 1, "chineseCounting", "第%1条")}
{level(1, 1, "decimal", "%1.%2", "<w:isLgl/>")}</w:abstractNum>
<w:abstractNum w:abstractNumId="1">{level(0, 3, "upperRoman", "(%1)")}</w:abstractNum>
<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>
<w:num w:numId="2"><w:abstractNumId w:val="1"/></w:num>
<w:num w:numId="3"><w:abstractNumId w:val="1"/>
<w:lvlOverride w:ilvl="0"><w:startOverride w:val="9"/></w:lvlOverride></w:num>
</w:numbering>"""


def test_word_list_numbers_are_counted_as_word_shows_them():
    from docx.oxml import parse_xml

    from glm_rag_ingest.loaders.docx_numbering import Numbering

    numbering = Numbering(parse_xml(NUMBERING))
    labels = [numbering.label("1", depth) for depth in (0, 1, 1, 0, 1)]
    assert labels == ["第一条", "1.1", "1.2", "第二条", "2.1"]
    assert [numbering.label("2", 0) for _ in range(2)] == ["(III)", "(IV)"]
    assert [numbering.label("3", 0) for _ in range(2)] == ["(IX)", "(X)"]
    assert numbering.label("0", 0) is None


@pytest.mark.parametrize(
    ("number", "kind", "shown"),
    [
        (28, "lowerLetter", "bb"),
        (1994, "lowerRoman", "mcmxciv"),
        (10, "chineseCountingThousand", "十"),
        (111, "chineseCounting", "一百一十一"),
        (2035, "japaneseCounting", "二千零三十五"),
        (3, "decimalEnclosedCircle", "③"),
        (7, "decimalZero", "07"),
        (0, "upperRoman", "0"),
    ],
)
def test_a_number_is_written_in_words_format(number, kind, shown):
    assert format_number(number, kind) == shown


def test_a_footnote_follows_the_paragraph_that_refers_to_it(word, tmp_path):
    def build(document):
        document.add_paragraph("The fee is 5 euros.")
        document.add_paragraph("Next.")

    word(build)
    note = "<w:r><w:footnoteReference w:id='2'/></w:r></w:p>"
    notes = (
        f"<w:footnotes {W}><w:footnote w:id='0' w:type='separator'><w:p><w:r><w:t>no</w:t></w:r>"
        "</w:p></w:footnote><w:footnote w:id='2'><w:p><w:r><w:t>Since 2020.</w:t></w:r></w:p>"
        "</w:footnote></w:footnotes>"
    )
    relation = (
        '<Relationship Id="rId99" Target="footnotes.xml" Type="http://schemas.openxmlformats.org'
        '/officeDocument/2006/relationships/footnotes"/></Relationships>'
    )
    kind = (
        '<Override PartName="/word/footnotes.xml" ContentType="application/vnd.openxmlformats-'
        'officedocument.wordprocessingml.footnotes+xml"/></Types>'
    )
    changes = {
        "word/document.xml": ("</w:p>", note),
        "word/_rels/document.xml.rels": ("</Relationships>", relation),
        "[Content_Types].xml": ("</Types>", kind),
    }
    path = tmp_path / "b.docx"
    with zipfile.ZipFile(tmp_path / "a.docx") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name in changes:
                before, after = changes[name]
                text = text.decode().replace(before, after, 1).encode()
            new.writestr(name, text)
        new.writestr("word/footnotes.xml", notes)
    (document,) = load(path).documents
    assert document.text == "The fee is 5 euros.[1]\n\n[1] Since 2020.\n\nNext."


def test_entities_in_a_word_file_do_not_grow(word, tmp_path, read):
    word(lambda document: document.add_paragraph("Hello there."))
    bomb = '<!DOCTYPE a [<!ENTITY b "xxxxxxxxxx"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]>'
    file = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "a.docx") as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name == "word/document.xml":
                text = text.replace(b"<w:document", bomb.encode() + b"<w:document", 1)
                text = text.replace(b"Hello", b"Hello&c;")
            new.writestr(name, text)
    assert "xxx" not in read("bomb.docx", file.getvalue()).text


def test_an_archive_with_a_password_is_encrypted(reason_of, make_zip):
    data = bytearray(make_zip({"word/document.xml": b"<a/>"}))
    data[data.index(b"PK\1\2") + 8] |= 1  # the general purpose flag
    assert reason_of("a.docx", bytes(data)) == "encrypted"


def test_an_archive_that_unpacks_to_far_more_is_refused(reason_of, make_zip):
    bomb = make_zip({"word/document.xml": bytes(150_000_000)})
    assert reason_of("a.docx", bomb) == "unsupported"
    size = (150_000_000).to_bytes(4, "little")
    assert bomb.count(size) == 2
    assert reason_of("b.docx", bomb.replace(size, (100).to_bytes(4, "little"))) == "unsupported"
