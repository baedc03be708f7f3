"""Pages of PDFs as pictures: only of files that are what was read; strange ones end in a reason."""

import hashlib
import io
import os
from dataclasses import replace

import pytest

import ui_fakes
from glm_rag_ui import pdf_page

pdfium = pytest.importorskip("pypdfium2")


@pytest.fixture
def path(tmp_path):
    document = pdfium.PdfDocument.new()
    for _ in range(2):
        document.new_page(300, 400)
    path = tmp_path / "a b.pdf"
    document.save(path)
    document.close()
    return path


def info_of(path):
    data = path.read_bytes()
    return replace(
        ui_fakes.document_info("x"),
        source=path.as_uri(),
        size=len(data),
        mtime=path.stat().st_mtime,
        sha256=hashlib.sha256(data).hexdigest(),
    )


def reason(call, *arguments) -> str:
    with pytest.raises(pdf_page.NoPicture) as caught:
        call(*arguments)
    return caught.value.key


def test_a_page_is_drawn_with_the_number_of_pages(path):
    from PIL import Image

    picture = pdf_page.draw(path, 2)
    assert picture.num_pages == 2
    assert Image.open(io.BytesIO(picture.png)).size == (600, 800)


def test_a_huge_page_is_drawn_small(tmp_path):
    from PIL import Image

    document = pdfium.PdfDocument.new()
    document.new_page(14_400, 10_000)
    path = tmp_path / "huge.pdf"
    document.save(path)
    width, height = Image.open(io.BytesIO(pdf_page.draw(path, 1).png)).size
    assert max(width, height) <= pdf_page.LONGEST_SIDE + 1


@pytest.mark.parametrize("number", [0, -1, 3, 10**6])
def test_a_page_that_is_not_there_has_a_reason(path, number):
    assert reason(pdf_page.draw, path, number) == "pdf_no_page"


@pytest.mark.parametrize("data", [b"", b"%PDF-1.7 torn", b"\x00" * 4096, b"<html>"])
def test_what_is_no_pdf_has_a_reason(tmp_path, data):
    path = tmp_path / "x.pdf"
    path.write_bytes(data)
    assert reason(pdf_page.draw, path, 1) == "pdf_unreadable"


def test_a_drawing_that_takes_too_long_is_given_up(path, monkeypatch):
    monkeypatch.setattr(pdf_page, "_SECONDS", 0.001)
    assert reason(pdf_page.draw, path, 1) == "pdf_slow"


def test_the_file_of_a_document_is_found_while_it_is_what_was_read(path):
    info = info_of(path)
    assert pdf_page.file_of(info) == path
    os.utime(path, (1, 1))
    assert pdf_page.file_of(info) == path, "a new time alone is no change"


def test_a_changed_file_is_not_shown(path):
    info = info_of(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, (1, 1))
    assert reason(pdf_page.file_of, info) == "pdf_changed"
    path.write_bytes(data + b"more")
    os.utime(path, (info.mtime, info.mtime))
    assert reason(pdf_page.file_of, info) == "pdf_changed"


def test_a_file_that_is_gone_or_a_folder_now_is_not_shown(path):
    info = info_of(path)
    path.unlink()
    assert reason(pdf_page.file_of, info) == "pdf_gone"
    path.mkdir()
    assert reason(pdf_page.file_of, info) == "pdf_gone"


@pytest.mark.parametrize(
    "source",
    ["text:1", "https://evil.example/a.pdf", "file://evil.example/share/a.pdf", "/etc/passwd", ""],
)
def test_what_is_no_file_of_this_computer_is_never_opened(path, source):
    assert reason(pdf_page.file_of, replace(info_of(path), source=source)) == "pdf_inside"


def test_a_document_inside_an_archive_has_no_page(path):
    assert reason(pdf_page.file_of, replace(info_of(path), container="file:///a.zip")) == (
        "pdf_inside"
    )
