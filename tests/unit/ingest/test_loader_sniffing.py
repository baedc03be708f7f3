"""A file is what it holds, whatever its name says, and the difference is told."""

from __future__ import annotations

import io
import zipfile

import pytest

from glm_rag.errors import DocumentError
from glm_rag_ingest.loaders import load

PAGE = "<!DOCTYPE html><html><body><h1>Rain</h1>" + "<p>It rains today.</p>" * 200
RTF = rb"{\rtf1\ansi It rains.\par}"
MAIL = "Received: by x\nFrom: a@b.c\nSubject: Rain\nMIME-Version: 1.0\n\nIt rains."


@pytest.fixture
def read(tmp_path):
    def write_and_load(name, data):
        path = tmp_path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return load(path).documents[0]

    return write_and_load


@pytest.fixture
def word():
    import docx

    document = docx.Document()
    document.add_paragraph("It rains.")
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def test_a_wrong_extension_is_told_and_the_file_read(read, word, make_pdf, pdf_text):
    pdf = make_pdf(pdf_text("It rains again."))
    cases = [
        ("a.pdf", PAGE, "text/html", "its name says .pdf, but it is a web page; read as that"),
        ("b.pdf", word, None, "its name says .pdf, but it is a Word document; read as that"),
        ("a.txt", pdf, "application/pdf", "its name says .txt, but it is a PDF; read as that"),
        ("a.html", pdf, "application/pdf", "its name says .html, but it is a PDF; read as that"),
        ("a.docx", RTF, "application/rtf", "its name says .docx, but it is an RTF document"),
        ("a.zip", word, None, "its name says .zip, but it is a Word document; read as that"),
        ("a.msg", MAIL, "message/rfc822", "its name says .msg, but it is a mail; read as that"),
        ("report.final", pdf, "application/pdf", "its name says .final, but it is a PDF"),
        ("old.bak", word, None, "its name says .bak, but it is a Word document"),
    ]
    for name, data, media_type, warning in cases:
        document = read(name, data)
        assert "rains" in document.text, name
        assert document.warnings[0].startswith(warning), name
        assert media_type in (None, document.media_type), name


def test_text_under_a_name_of_text_is_left_alone(read):
    for name in ("a.md", "a.txt", "a.py", "a.rst"):
        assert read(name, PAGE).warnings == ()
        assert "text/html" not in read(name, PAGE).media_type


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (PAGE, "text/html"),
        (f'<?xml version="1.0"?>\n<!-- a -->\n{PAGE}', "text/html"),
        (RTF, "application/rtf"),
        (MAIL, "message/rfc822"),
        ("Dear all: it rains.\nFrom: nobody\n", "text/plain"),
        ("\ufeffIt rains.".encode("utf-16-le"), "text/plain"),
    ],
)
def test_a_file_without_an_extension_is_judged_by_its_content(read, data, media_type):
    assert read("file", data).media_type == media_type


def test_an_archive_without_an_extension_is_opened(tmp_path):
    path = tmp_path / "bundle"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "It rains.")
    assert [document.title for document in load(path).documents] == ["bundle", "a.txt"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("app.jar", b"PK\3\4" + bytes(100)),
        ("film.mp4", bytes(5000)),
        ("data.bin", b"plain words"),
        ("program", b"\x7fELF\x02\x01" + bytes(range(256)) * 20),
    ],
)
def test_what_is_of_no_known_kind_stays_unsupported(read, name, data):
    with pytest.raises(DocumentError, match=r"^unsupported: "):
        read(name, data)


def test_a_large_file_of_an_unknown_name_is_not_read_to_find_out(tmp_path):
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(DocumentError, match=r"^unsupported: \.img files"):
        load(path)
