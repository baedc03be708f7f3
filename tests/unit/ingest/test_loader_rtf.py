"""Rich text reads as a word processor shows it."""

from __future__ import annotations

import pytest

from glm_rag.errors import DocumentError
from glm_rag_ingest.loaders.rtf import extract


def text_of(body, head=r"\ansi\ansicpg1252\deff0"):
    return extract(f"{{\\rtf1{head} {body}}}".encode()).text


def test_accents_unicode_and_pictures_beyond_the_first_plane():
    assert text_of(r"Gr\'fc\'dfe \u8212? \u20013?\u25991? \u-10179?\u-8694?") == "Grüße — 中文 😊"


@pytest.mark.parametrize(
    ("page", "charset", "encoding", "text"),
    [
        (936, 134, "gbk", "员工手册"),
        (936, 0, "gbk", "员工手册"),
        (950, 136, "big5", "員工手冊"),
        (932, 128, "cp932", "社員の手引き"),
        (949, 129, "cp949", "직원 안내"),
        (1251, 204, "cp1251", "Привет"),
        (1252, 204, "cp1251", "Привет"),
    ],
)
def test_bytes_are_read_in_the_fonts_or_the_documents_code_page(page, charset, encoding, text):
    escaped = "".join(f"\\'{byte:02x}" for byte in text.encode(encoding))
    head = f"\\ansi\\ansicpg{page}\\deff0{{\\fonttbl{{\\f0\\fnil\\fcharset{charset} Song;}}}}"
    assert text_of(f"\\f0 {escaped}\\par", head).strip() == text
    raw = f"{{\\rtf1{head}\\f0 ".encode() + text.encode(encoding).replace(b"\\", b"\\'5c") + b"}"
    assert extract(raw).text == text


def test_headings_and_title_are_kept_and_headers_are_not():
    styles = r"{\stylesheet{\s0 Normal;}{\s1\sbasedon0\outlinelevel0 heading 1;}{\s2 heading 2;}}"
    body = (
        styles + r"{\info{\title The \'fcber title}{\author A}}{\header Page head}"
        r"\pard\s1\b Top\b0\par\pard\s0 Text.\par\pard\s2 Sub\par\pard More.\par"
    )
    found = extract(f"{{\\rtf1\\ansi {body}}}".encode())
    assert found.title == "The über title"
    assert found.text == "# Top\n\nText.\n\n## Sub\n\nMore."


def test_tables_become_rows():
    row = r"\trowd\cellx100\cellx200\intbl {}\cell {}\cell\row"
    body = (
        r"Before.\par "
        + row.format("Item", "Price")
        + row.format(r"A\par B", "5|6")
        + r"\pard After."
    )
    assert text_of(body) == (
        "Before.\n\n| Item | Price |\n| --- | --- |\n| A B | 5\\|6 |\n\nAfter."
    )


def test_binary_pictures_and_objects_are_skipped():
    picture = b"{\\pict\\bin6 }{}}\\}}" + b"{\\object{\\objdata " + b"0aff" * 1000 + b"}}"
    assert extract(b"{\\rtf1\\ansi Before. " + picture + b"After.\\par}").text == "Before. After."


def test_a_link_shows_its_text():
    link = r'{\field{\*\fldinst{HYPERLINK "https://example.org"}}{\fldrslt our site}}'
    assert text_of(f"See {link}.") == "See our site."


def test_what_is_no_rtf_is_corrupt():
    with pytest.raises(DocumentError, match=r"^corrupt: not an RTF file"):
        extract(b"plain text")


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "body",
    [
        "{" * 200_000,
        "}" * 200_000,
        r'{\field{\*\fldinst{HYPERLINK "x"' * 5_000,
        r"{\s1" * 50_000,
        r"\trowd" * 50_000,
        r"\trowd a\cell" * 50_000,
        r"\ansicpg99999 \'e9",
        r"{\pict " + "0f" * 2_000_000 + "}",
    ],
)
def test_hostile_files_take_time_in_proportion(body):
    text_of(body)
