"""Recognised lines come in the order a person reads them, and pictures are read as pages."""

from __future__ import annotations

import io

import pytest

from glm_rag_ingest.loaders import image, ocr
from glm_rag_ingest.loaders.ocr import Line


def ordered(lines):
    return list(ocr._ordered([Line(*line) for line in lines]))


def test_columns_of_text_are_read_one_after_another_below_their_title():
    title = (100, 0, 900, 40, "Title")
    left = [(0, 100 + 50 * i, 450, 140 + 50 * i, f"left {i}") for i in range(6)]
    right = [(550, 102 + 50 * i, 1000, 142 + 50 * i, f"right {i}") for i in range(6)]
    lines = [title, *(line for pair in zip(left, right, strict=True) for line in pair)]
    assert ordered(lines) == [
        "Title",
        *(f"left {i}" for i in range(6)),
        *(f"right {i}" for i in range(6)),
    ]


def test_cells_of_a_table_are_read_row_by_row():
    names = ["Fee", "A much longer name", "Day", "Place", "Time"]
    rows = [(0, 50 * i, 15 * len(name), 50 * i + 40, name) for i, name in enumerate(names)]
    values = [(550, 50 * i + 3, 600 + 90 * i, 50 * i + 43, str(i)) for i in range(5)]
    assert ordered([*values, *rows]) == [f"{name} {i}" for i, name in enumerate(names)]


def test_a_picture_without_ocr_says_how_to_get_it(read, reason_of):
    assert reason_of("a.png", b"\x89PNG\r\n\x1a\n") == "unsupported"


def picture(*, size=(400, 100), frames=1, suffix="TIFF", **options):
    image_module = pytest.importorskip("PIL.Image")
    pictures = [image_module.new("RGB", size, (200, 100, 0)) for _ in range(frames)]
    file = io.BytesIO()
    more = {"save_all": True, "append_images": pictures[1:]} if frames > 1 else {}
    pictures[0].save(file, suffix, **more, **options)
    return file.getvalue()


def test_every_frame_of_a_picture_is_a_page(read, monkeypatch):
    seen = []

    def recognise(pixels):
        seen.append((pixels.shape, tuple(pixels[0, 0])))
        return f"Frame {len(seen)}"

    monkeypatch.setattr(ocr, "why_not", lambda: "")
    monkeypatch.setattr(ocr, "recognise", recognise)
    document = read("a.tif", picture(frames=2))
    assert document.text == "Frame 1\n\nFrame 2"
    assert [page.number for page in document.pages] == [1, 2]
    assert document.warnings == ("pages 1-2: text recognised by OCR",)
    assert seen == [((100, 400, 3), (0, 100, 200))] * 2  # blue first


def test_a_picture_is_refused_or_scaled_by_its_size(reason_of, monkeypatch):
    monkeypatch.setattr(ocr, "why_not", lambda: "")
    shapes = []
    monkeypatch.setattr(ocr, "recognise", lambda pixels: shapes.append(pixels.shape) or "")
    assert reason_of("a.png", picture(size=(6000, 600), suffix="PNG")) == "no_text"
    assert shapes == [(300, 3000, 3)]
    monkeypatch.setattr(image, "_MOST_PIXELS", 1000)
    assert reason_of("b.png", picture(suffix="PNG")) == "unsupported"
    assert reason_of("c.png", b"no picture") == "corrupt"


@pytest.mark.slow
def test_ocr_reads_a_scanned_page_without_any_network(no_network, monkeypatch, test_data):
    pytest.importorskip("rapidocr_onnxruntime")
    pytest.importorskip("pypdfium2")
    from glm_rag_ingest.loaders import pdf

    data = test_data / "documents" / "scan-loremipsum-flat.pdf"
    monkeypatch.setattr(ocr, "version", lambda: "installed")
    found = pdf.extract(data.read_bytes())
    for phrase in ("Lorem ipsum dolor sit amet", "erat dignissim", "at vestibulum."):
        assert phrase in found.text
    assert found.warnings == ("page 1: text recognised by OCR",)
