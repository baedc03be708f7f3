"""Slides are pages, read from the top left, with everything that carries words."""

from __future__ import annotations

import io

import pytest

from glm_rag_ingest.loaders import load


@pytest.fixture
def slides(tmp_path):
    """Save a presentation made by a function and load it."""
    from pptx import Presentation

    def save_and_load(build):
        presentation = Presentation()
        build(presentation)
        path = tmp_path / "a.pptx"
        presentation.save(str(path))
        return load(path).documents[0]

    return save_and_load


def box(shapes, text, left, top):
    from pptx.util import Inches

    shape = shapes.add_textbox(Inches(left), Inches(top), Inches(2), Inches(1))
    shape.text_frame.text = text
    return shape


def test_shapes_are_read_from_the_top_left_and_groups_inside(slides):
    def build(presentation):
        slide = presentation.slides.add_slide(presentation.slide_layouts[5])
        box(slide.shapes, "bottom", 1, 6)
        box(slide.shapes, "right", 5, 2)
        group = slide.shapes.add_group_shape([box(slide.shapes, "low", 0, 2.2)])
        box(group.shapes, "high", 0, 1.5)
        slide.shapes.title.text = "The\vtitle"
        slide.notes_slide.notes_text_frame.text = "Say hello."

    document = slides(build)
    assert document.title == "The title"
    assert document.text == ("## The title\n\nhigh\n\nlow\n\nright\n\nbottom\n\nNotes: Say hello.")


def test_shapes_that_begin_about_as_high_are_read_from_the_left(slides):
    def build(presentation):
        slide = presentation.slides.add_slide(presentation.slide_layouts[6])
        for text, left, top in (("below", 1, 4), ("right", 5, 2), ("left", 1, 2.3)):
            box(slide.shapes, text, left, top)

    assert slides(build).text == "## Slide 1\n\nleft\n\nright\n\nbelow"


def test_slides_are_pages_and_one_without_title_has_its_number(slides):
    def build(presentation):
        for text in ("one", "", "three"):
            slide = presentation.slides.add_slide(presentation.slide_layouts[6])
            if text:
                box(slide.shapes, text, 1, 1)
        presentation.core_properties.title = "Deck"

    document = slides(build)
    assert document.title == "Deck"
    assert document.text == "## Slide 1\n\none\n\n## Slide 3\n\nthree"
    assert [page.number for page in document.pages] == [1, 3]
    last = document.pages[1]
    assert document.text[last.start : last.end] == "## Slide 3\n\nthree"


def test_tables_and_charts_are_markdown(slides):
    from pptx.chart.data import CategoryChartData
    from pptx.enum.chart import XL_CHART_TYPE
    from pptx.util import Inches

    def build(presentation):
        slide = presentation.slides.add_slide(presentation.slide_layouts[6])
        place = (Inches(1), Inches(1), Inches(4), Inches(1))
        table = slide.shapes.add_table(2, 2, *place).table
        for i, text in enumerate(("Item", "Euro", "wide", "")):
            table.cell(i // 2, i % 2).text = text
        table.cell(1, 0).merge(table.cell(1, 1))
        table.cell(1, 1).text = "covered"
        data = CategoryChartData()
        data.categories = ["2023", "2024"]
        data.add_series("Sales", (1.5, None))
        place = (Inches(1), Inches(3), Inches(4), Inches(3))
        chart = slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *place, data).chart
        chart.has_title = True
        chart.chart_title.text_frame.text = "Growth"

    assert slides(build).text == (
        "## Slide 1\n\n| Item | Euro |\n| --- | --- |\n| wide |  |\n\n"
        "Growth\n\n|  | Sales |\n| --- | --- |\n| 2023 | 1.5 |\n| 2024 |  |"
    )


def test_a_damaged_shape_costs_itself_and_is_reported(slides, monkeypatch):
    from glm_rag_ingest.loaders import pptx

    real = pptx._paragraphs

    def paragraphs(frame):
        if frame.text == "bad":
            raise KeyError("no relationship")
        return real(frame)

    def build(presentation):
        slide = presentation.slides.add_slide(presentation.slide_layouts[6])
        box(slide.shapes, "bad", 1, 1)
        box(slide.shapes, "good", 1, 3)

    monkeypatch.setattr(pptx, "_paragraphs", paragraphs)
    document = slides(build)
    assert document.text == "## Slide 1\n\ngood"
    assert document.warnings == ("slide 1: damaged, left out in part",)


def test_a_presentation_that_cannot_be_read_says_why(reason_of, make_zip):
    from pptx import Presentation

    ole = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(512)
    assert reason_of("a.pptx", ole) == "corrupt"
    assert reason_of("b.pptx", ole + "EncryptedPackage".encode("utf-16-le")) == "encrypted"
    assert reason_of("c.pptx", b"PK\3\4 cut off") == "corrupt"
    assert reason_of("d.pptx", make_zip({"ppt/slides/slide1.xml": bytes(150_000_000)})) == (
        "unsupported"
    )
    file = io.BytesIO()
    Presentation().save(file)
    assert reason_of("e.pptx", file.getvalue()) == "empty"
