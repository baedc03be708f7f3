"""Presentations (.pptx): one page per slide, in reading order, with tables, charts and notes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from glm_rag.errors import MissingDependencyError
from glm_rag_ingest.loaders.base import Extracted, clean_text, failure
from glm_rag_ingest.loaders.office import check_archive
from glm_rag_ingest.loaders.pages import join_pages, page_list
from glm_rag_ingest.loaders.tables import markdown_rows

VERSION = "pptx/1"
MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
SUFFIXES = (".pptm", ".pptx")

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_DIAGRAM = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}relIds"
_DIAGRAM_DATA = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}dm"
_SAME_ROW = 457_200  # EMU, half an inch: shapes that begin this close are read left to right
_NO_TITLE = re.compile(
    r"powerpoint[- ]pr[aeä]s[ei]nta\w+|presentation\d*|演示文稿\d*", re.IGNORECASE
)
# Alternative texts that nobody wrote: file names, and what PowerPoint guesses.
_NO_ALT_TEXT = re.compile(
    r"automatically generated|自动生成|\.(?:png|jpe?g|gif|svg|emf|wmf|tiff?)$", re.IGNORECASE
)


def extract(data: bytes) -> Extracted:
    """Slides as pages with `## ` titles; a shape or slide that cannot be read is a warning.

    Slide numbers are left out, as are dates and footers that a slide before has shown.
    """
    try:
        from pptx import Presentation
    except ImportError as error:
        raise MissingDependencyError.for_extra("python-pptx", "documents") from error
    check_archive(data, ".pptx", old_suffix=".ppt")
    presentation = Presentation(io.BytesIO(data))
    reader = _Reader()
    slides = [reader.slide(slide, i) for i, slide in enumerate(_slides(presentation), start=1)]
    if not any(slides) and reader.damaged:
        raise failure("corrupt", "no slide can be read; the file is damaged")
    text, pages = join_pages(slides)
    title = " ".join((presentation.core_properties.title or "").split())
    if _NO_TITLE.fullmatch(title):
        title = ""
    return Extracted(text, title or reader.first_title, pages, tuple(reader.warnings()))


def _slides(presentation: Any) -> Iterator[Any]:
    """The slides; `None` for one whose part is missing."""
    slides = presentation.slides
    for index in range(len(slides)):
        try:
            yield slides[index]
        except Exception:  # noqa: BLE001  # whatever is wrong with one, the others are good
            yield None


class _Reader:
    """Reads slides one by one; remembers footers it has shown and slides with damage."""

    def __init__(self) -> None:
        self.first_title = ""
        self.damaged: list[int] = []
        self._seen_footers: set[str] = set()

    def warnings(self) -> Iterator[str]:
        if self.damaged:
            yield f"{page_list(sorted(set(self.damaged)), 'slide')}: damaged, left out in part"

    def slide(self, slide: Any, number: int) -> str:
        """Text of one slide; empty if nothing is on it."""
        title = " ".join(self._try(number, lambda: _title(slide)).split())
        self.first_title = self.first_title or title
        parts = [*self._shapes(slide, number), self._try(number, lambda: _notes(slide))]
        text = "\n\n".join(part.strip("\n") for part in parts if part.strip())
        if not title and not text:
            return ""
        return clean_text(f"## {title or f'Slide {number}'}\n\n{text}")

    def _shapes(self, slide: Any, number: int) -> Iterator[str]:
        if slide is None:
            return
        title = slide.shapes.title
        for shape in _in_reading_order(slide.shapes):
            if title is None or shape.shape_id != title.shape_id:
                yield self._try(number, partial(self._shape, shape))

    def _try(self, number: int, read: Callable[[], str]) -> str:
        try:
            return read()
        except Exception:  # noqa: BLE001  # a parser may raise anything on a damaged part
            self.damaged.append(number)
            return ""

    def _shape(self, shape: Any) -> str:
        if hasattr(shape, "shapes"):  # a group
            inner = (self._shape(part) for part in _in_reading_order(shape.shapes))
            return "\n\n".join(part for part in inner if part.strip())
        if shape.has_text_frame:
            return "" if self._is_repeated(shape) else _paragraphs(shape.text_frame)
        if getattr(shape, "has_table", False):
            return _table(shape.table)
        if getattr(shape, "has_chart", False):
            return _chart(shape.chart)
        return _diagram(shape) or _alt_text(shape)

    def _is_repeated(self, shape: Any) -> bool:
        """Whether a shape is a slide number, or a date or footer that was shown before."""
        from pptx.enum.shapes import PP_PLACEHOLDER

        kind = shape.placeholder_format.type if shape.is_placeholder else None
        if kind == PP_PLACEHOLDER.SLIDE_NUMBER:
            return True
        if kind not in (PP_PLACEHOLDER.DATE, PP_PLACEHOLDER.FOOTER):
            return False
        text = shape.text_frame.text
        is_known = text in self._seen_footers
        self._seen_footers.add(text)
        return is_known


def _title(slide: Any) -> str:
    shape = slide.shapes.title
    return shape.text_frame.text if shape is not None else ""


def _notes(slide: Any) -> str:
    if slide is None or not slide.has_notes_slide:
        return ""
    frame = slide.notes_slide.notes_text_frame
    text = frame.text.strip() if frame is not None else ""
    return f"Notes: {text}" if text else ""


def _in_reading_order(shapes: Iterable[Any]) -> list[Any]:
    """Row by row from the top, each row from the left."""
    placed = sorted(((_position(shape), shape) for shape in shapes), key=lambda item: item[0])
    rows: list[tuple[int, list[tuple[int, Any]]]] = []
    for (top, left), shape in placed:
        if not rows or top > rows[-1][0] + _SAME_ROW:
            rows.append((top, []))
        rows[-1][1].append((left, shape))
    return [shape for _, row in rows for _, shape in sorted(row, key=lambda item: item[0])]


def _position(shape: Any) -> tuple[int, int]:
    """Top and left edge; the top left corner where the file does not say."""
    try:
        return int(shape.top or 0), int(shape.left or 0)
    except Exception:  # noqa: BLE001  # a missing layout must not cost the text
        return 0, 0


def _paragraphs(frame: Any) -> str:
    paragraphs = ((paragraph.level, paragraph.text.strip()) for paragraph in frame.paragraphs)
    return "\n".join(_item(level, text) for level, text in paragraphs if text)


def _item(level: int, text: str) -> str:
    return f"{'  ' * (level - 1)}- {text}" if level else text


def _table(table: Any) -> str:
    rows = [
        ["" if cell.is_spanned else cell.text_frame.text for cell in row.cells]
        for row in table.rows
    ]
    return markdown_rows(rows, has_header=bool(table.first_row))


def _chart(chart: Any) -> str:
    """Title, then one row per category and one column per series."""
    has_title = chart.has_title and chart.chart_title.has_text_frame
    title = chart.chart_title.text_frame.text.strip() if has_title else ""
    tables = []
    for plot in chart.plots:
        series = list(plot.series)
        header = ["", *(one.name or "" for one in series)]
        columns = [list(one.values) for one in series]
        rows = [
            [str(name), *(_value(column, i) for column in columns)]
            for i, name in enumerate(plot.categories)
        ]
        tables.append(markdown_rows([header, *rows], has_header=True))
    return "\n\n".join(part for part in (title, *tables) if part)


def _value(column: list[Any], index: int) -> str:
    value = column[index] if index < len(column) else None
    return "" if value is None else format(value, ".15g")


def _diagram(shape: Any) -> str:
    """The texts of a SmartArt graphic, which lie in a part of their own."""
    found = next(shape.element.iter(_DIAGRAM), None)
    if found is None:
        return ""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    root = etree.fromstring(shape.part.related_part(found.get(_DIAGRAM_DATA)).blob, parser)
    paragraphs = ("".join(p.itertext(f"{_A}t")).strip() for p in root.iter(f"{_A}p"))
    return "\n".join(f"- {text}" for text in paragraphs if text)


def _alt_text(shape: Any) -> str:
    described = shape.element.xpath(".//p:cNvPr/@descr")
    text = " ".join(described[0].split()) if described else ""
    return "" if _NO_ALT_TEXT.search(text) else text
