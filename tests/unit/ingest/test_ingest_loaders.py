"""Each format turns into the text a reader would see, or into one honest line."""

from __future__ import annotations

import hashlib

import pytest

from glm_rag.errors import DocumentError
from glm_rag_ingest.loaders import is_current, load, versions

TRADITIONAL = "這是公司的規定，員工可以在家工作，我們的時間是早上九點到下午五點。"
ZH = "育儿假为26周，期间发放全额工资。父母双方均可享受，收养子女同样适用，这是公司的规定。"


# ---------------------------------------------------------------- text and encodings


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "gbk", "gb18030", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "big5"],
)
def test_chinese_text_reads_the_same_in_every_encoding(read, encoding):
    text = TRADITIONAL if encoding == "big5" else ZH
    assert read("a.txt", (text * 3).encode(encoding)).text == text * 3


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Die schöne Frau hat für 15,50 € gegessen. Où êtes-vous, señora? Très bien."),
        ("cp1252", "Kvinnan åt köttbullar. El niño comió paella con ñoquis. João está ótimo."),
        ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy. Zażółć gęślą jaźń, proszę państwa."),
        ("cp1251", "Все люди рождаются свободными и равными в своём достоинстве и правах."),
        (
            "shift_jis",
            "すべての人間は、生まれながらにして自由であり、尊厳と権利について平等である。",
        ),
        ("euc-kr", "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다."),
    ],
)
def test_text_in_a_legacy_encoding_is_not_garbled(read, encoding, text):
    assert read("a.txt", (text + "\n").encode(encoding) * 4).text == "\n".join([text] * 4)


def test_line_ends_and_control_characters_are_normalised(read):
    text = read("a.txt", "a\r\nb\rc\x85d\x00\x07e\u200bf\ufeff \n\n\n\n\ng\t1\n").text
    assert text == "a\nb\nc\nde" + "f\n\ng\t1"


def test_the_document_says_what_it_was_read_from(read, tmp_path):
    document = read("notes.txt", "Hello.")
    assert document.source == (tmp_path / "notes.txt").as_uri()
    assert document.sha256 == hashlib.sha256(b"Hello.").hexdigest()
    assert (document.size, document.media_type, document.title) == (6, "text/plain", "notes.txt")
    assert document.mtime == (tmp_path / "notes.txt").stat().st_mtime
    assert is_current(document.parser_version)
    assert not is_current("text/0.0")
    assert not is_current("nothing/1")
    assert versions() == versions()


@pytest.mark.parametrize("name", ["a.log", "a.text", "A.TXT", "README"])
def test_plain_text_has_several_names(read, name):
    assert read(name, "Hello there.").media_type == "text/plain"


def test_text_in_characters_of_private_use_is_garbled_and_a_few_icons_are_not(read, reason_of):
    assert reason_of("a.html", "<p>" + "\ue001\ue002\ue003 " * 50) == "garbled"
    assert reason_of("a.md", "\uf0aa\uf0ab" * 50) == "garbled"
    page = "<p>\ue001 Home</p><p>Words that people read, and many more of them.</p>"
    assert "Words that people read" in read("b.html", page).text


def test_binary_data_under_a_text_name_is_corrupt(reason_of):
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 8
    assert reason_of("a.txt", png) == "corrupt"


@pytest.mark.parametrize("data", [b"", b"  \n\n", "\ufeff".encode()])
@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html"])
def test_a_file_without_text_is_empty(reason_of, name, data):
    assert reason_of(name, data) == "empty"


@pytest.mark.parametrize("name", ["b.tar.gz", "a.exe", "film.mp4"])
def test_an_unsupported_format_is_named_with_what_to_do(read, name):
    with pytest.raises(DocumentError) as caught:
        read(name, b"x")
    assert caught.value.reason == "unsupported"
    assert caught.value.permanent
    kind = name[name.rindex(".") :]
    assert str(caught.value) == (
        f"unsupported: {kind} files are not read; save it as text, PDF, Word or HTML"
    )


def test_a_file_without_extension_is_judged_by_its_content(read, reason_of, make_pdf, pdf_text):
    assert read("paper", make_pdf(pdf_text("A paper about rain."))).media_type == "application/pdf"
    assert read("page", "<!DOCTYPE html><p>Hello").media_type == "text/html"
    assert reason_of("program", b"\x7fELF\x02\x01\x01\0\0\0" + bytes(64)) == "unsupported"


def test_what_the_system_will_not_open_is_unreadable_and_tried_again(tmp_path, monkeypatch):
    from pathlib import Path

    path = tmp_path / "a.txt"
    path.write_text("x")
    (tmp_path / "folder.txt").mkdir()

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    for target in (tmp_path / "absent.txt", tmp_path / "folder.txt"):
        with pytest.raises(DocumentError, match=r"^unreadable: ") as caught:
            load(target)
        assert not caught.value.permanent
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(DocumentError, match=r"^unreadable: permission denied$") as caught:
        load(path)
    assert caught.value.reason == "unreadable"
    assert not caught.value.permanent


# ---------------------------------------------------------------- Markdown


def test_markdown_keeps_text_and_loses_markup(read):
    document = read(
        "a.md",
        "---\ntitle: 'Front'\ntags: [a]\n---\n<!-- hidden -->\nSetext\n======\n\n"
        "Text with `<b>code</b>`, <b>bold</b> &amp; ![a chart](data:image/png;base64,AAAA).\n\n"
        "| a      | b |\n|---|---|\n| 1<br>2 | 3 |\n\n```html\n<div>\n# no heading\n</div>\n```\n\n"
        "<h2 align='center'>Second <i>part</i></h2>\n<https://example.org>",
    )
    assert document.title == "Front"
    assert document.text == (
        "# Setext\n\nText with `<b>code</b>`, bold & a chart.\n\n| a | b |\n|---|---|\n| 1 2 | 3 |"
        "\n\n```html\n<div>\n# no heading\n</div>\n```\n\n## Second part\n\n<https://example.org>"
    )


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# One\n\nx", "One"),
        ("## Two\n\nx", "a.md"),
        ("text", "a.md"),
        ("```shell\n# on linux\nls\n```\n\ntext", "a.md"),
        ("~~~\n# a comment\n~~~\n\n# One", "One"),
    ],
)
def test_the_title_of_markdown_is_its_top_heading(read, text, title):
    assert read("a.md", text).title == title


# ---------------------------------------------------------------- HTML


def test_html_reads_as_a_browser_shows_it(read):
    document = read(
        "a.html",
        "<html><head><title>The\n title</title><style>p{}</style></head><body>"
        "<nav>Home</nav><script>var x</script><div style='display: none'>hidden</div>"
        "<h2>Heading <b>two</b></h2><p>One\n  two<br>three</p>tail<ul><li>a<li><p>b</p></ul>"
        "<pre>x\n  y</pre><p>中文\n中文</p></body></html>",
    )
    assert document.title == "The title"
    assert document.text == (
        "## Heading two\n\nOne two\nthree\n\ntail\n\n- a\n- b\n\nx\n  y\n\n中文中文"
    )


def test_an_html_table_becomes_rows_and_a_layout_table_paragraphs(read):
    data = "<table><tr><th>Item<th colspan=2>Price<tr><td>A|B<td>5<td>EUR<tr><td><td><td></table>"
    layout = "<table><tr><td><h1>Top</h1><td><p>Text</table><table><tr><td>One cell</table>"
    rows = ("| Item | Price |  |", "| --- | --- | --- |", "| A\\|B | 5 | EUR |")
    assert read("a.html", data).text == "\n".join(rows)
    assert read("b.html", layout).text == "# Top\n\nText\n\nOne cell"


@pytest.mark.parametrize(
    "head",
    [
        '<meta charset="gb2312">',
        '<meta http-equiv="Content-Type" content="text/html; charset=GBK">',
        '<meta charset="utf-8">',
        "",
    ],
)
def test_a_gbk_page_reads_right_whatever_it_declares(read, head):
    page = f"<html><head>{head}</head><body><p>{ZH}</p></body></html>"
    assert read("a.html", page.encode("gbk")).text == ZH


def test_a_utf8_page_that_claims_latin1_reads_right(read):
    page = f'<meta charset="iso-8859-1"><p>{ZH}'
    assert read("a.html", page.encode()).text == ZH
    assert read("b.html", page.replace(ZH, "schön").encode("latin-1")).text == "schön"


def test_deeply_nested_html_is_no_problem(read):
    assert read("a.html", "<div>" * 5000 + "deep" + "</div>" * 5000).text == "deep"


@pytest.mark.timeout(30)
def test_html_nested_beyond_all_reason_is_refused_and_wide_pages_are_not(read, reason_of):
    assert reason_of("a.html", "<div>" * 1_000_000 + "deep") == "unsupported"
    assert reason_of("b.html", "<ul><li>" * 20_000 + "deep") == "unsupported"
    assert read("c.html", "<p>x" * 30_000).text.count("x") == 30_000
    assert read("d.html", "<div><p>x</p></div>" * 30_000).text.count("x") == 30_000


def test_empty_elements_of_xhtml_do_not_swallow_the_page(read):
    page = '<html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body>'
    assert read("a.xhtml", page + '<script src="x"/><p>Seen</p></body></html>').text == "Seen"


def test_loading_prints_nothing(tmp_path, make_pdf, pdf_text, capfd):
    for name, data in {
        "a.pdf": make_pdf(pdf_text("Enough text on this page.")),
        "b.pdf": b"%PDF-1.4 broken",
        "c.docx": b"PK broken",
        "d.html": b"<p>x",
    }.items():
        (tmp_path / name).write_bytes(data)
        try:
            load(tmp_path / name)
        except DocumentError:
            continue
    assert capfd.readouterr() == ("", "")


def test_a_missing_library_names_the_extra(tmp_path, monkeypatch, make_pdf):
    import sys

    from glm_rag.errors import MissingDependencyError

    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    (tmp_path / "a.pdf").write_bytes(make_pdf(""))
    with pytest.raises(MissingDependencyError, match=r'pip install "glm-rag\[documents\]"'):
        load(tmp_path / "a.pdf")


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "line",
    [
        "a" + " \t" * 50_000 + "b",
        "# a" + " #" * 200_000 + "b",
        "<!--" * 50_000,
        "<h1>" * 50_000,
        "![" * 60_000,
    ],
    ids=["spaces", "signs", "comments", "headings", "pictures"],
)
def test_lines_of_one_thing_over_and_over_are_read_in_time(read, line):
    assert read("a.md", f"{line}\nend").text.endswith("end")


def test_a_title_is_one_line_of_bearable_length(read):
    title = read("a.md", "# " + "very long title " * 1000 + "\n\ntext").title
    assert len(title) == 200
    assert title.endswith("…")


def test_a_sign_in_a_name_is_part_of_the_title(read):
    assert read("a.md", "# C#\n\ntext").title == "C#"
    assert read("b.md", "# Guide #\n\ntext").title == "Guide"
