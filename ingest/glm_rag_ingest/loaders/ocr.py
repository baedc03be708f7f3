"""Text from pictures of pages. RapidOCR is optional; its models come inside its wheel."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from glm_rag.errors import MissingDependencyError
from glm_rag_ingest.loaders.pdf_text import normalise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Letters of 10 points are 28 pixels high then. At 150 dpi a third of the spaces between Latin
# words is lost, at 250 dpi a page takes half as long again (measured on a page of 330 words).
DOTS_PER_INCH = 200
LONGEST_SIDE = 3000  # pixels; A4 has 2,339 at 200 dpi
# A page takes about 9 CPU seconds, and a file may be read for 300 s: what was recognised by then
# is worth more than a file given up.
SECONDS = 200.0
_PACKAGE = "rapidocr_onnxruntime"
_LEAST_SURE = 0.5
_SAME_ROW = 0.5  # share of a line's height in which another of the same row may begin lower
_LEAST_COLUMN = 4  # lines; fewer side by side are cells of a table
_FILLED = 0.6  # share of a column's width that most lines of running text fill


def version() -> str:
    """The installed version, empty without one: what a parser version has to depend on."""
    if importlib.util.find_spec(_PACKAGE) is None:
        return ""
    try:
        return importlib.metadata.version(_PACKAGE.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return "0"


def why_not() -> str:
    """Why no text can be recognised, and what to do; empty if it can."""
    if not version():
        return str(MissingDependencyError.for_extra("OCR", "ocr"))
    _, problem = _engine()
    advice = 'run pip install --force-reinstall "glm-rag[ocr]" opencv-python-headless'
    return f"OCR is installed but cannot start ({problem}); {advice}" if problem else ""


@functools.cache
def _engine() -> tuple[Any, str]:
    """The recogniser, loaded once, or why it cannot be."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from rapidocr_onnxruntime import RapidOCR

            # Its classifier of lines that stand on their heads turns one good line in ten.
            engine = RapidOCR(use_cls=False, max_side_len=LONGEST_SIDE, text_score=_LEAST_SURE)
    # OpenCV fails to load on machines without its system libraries, in more than one way.
    except Exception as error:  # noqa: BLE001
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)
    return engine, ""


class Clock:
    """The time one file may take for OCR."""

    def __init__(self) -> None:
        self._end = time.monotonic() + SECONDS

    def is_over(self) -> bool:
        """Whether no further page may be begun."""
        return time.monotonic() > self._end


@dataclass(frozen=True, slots=True)
class Line:
    """A recognised line and its box, in pixels from the top left corner."""

    left: float
    top: float
    right: float
    bottom: float
    text: str


def recognise(pixels: NDArray[np.uint8]) -> str:
    """Text of a picture in reading order; `why_not` must be empty.

    Args:
        pixels: `[height, width, 3]`, blue first, or `[height, width]` in grey.
    """
    engine, _ = _engine()
    found, _ = engine(pixels)
    lines = [_line(box, text) for box, text, _ in found or ()]
    return normalise("\n".join(_ordered(lines)))


def _line(box: Sequence[Sequence[float]], text: str) -> Line:
    across, down = [corner[0] for corner in box], [corner[1] for corner in box]
    return Line(min(across), min(down), max(across), max(down), text)


def _ordered(lines: Sequence[Line]) -> Iterator[str]:
    """Columns one after another; lines side by side that are no columns as one line.

    Where the lines do not fall into columns, they are cut at their widest gap from top to bottom
    and tried again, since a title may stand across the columns below it.
    """
    if cut := _column_gap(lines):
        yield from _ordered([line for line in lines if line.right <= cut])
        yield from _ordered([line for line in lines if line.right > cut])
        return
    rows = _rows(lines)
    if len(lines) < 2 * _LEAST_COLUMN or len(rows) == 1 or len(rows) == len(lines):
        yield from (" ".join(line.text for line in row) for row in rows)
        return
    gaps = [_gap(above, below) for above, below in pairwise(rows)]
    at = gaps.index(max(gaps)) + 1
    yield from _ordered([line for row in rows[:at] for line in row])
    yield from _ordered([line for row in rows[at:] for line in row])


def _rows(lines: Sequence[Line]) -> list[list[Line]]:
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: line.top):
        first = rows[-1][0] if rows else None
        if first is None or line.top > first.top + _SAME_ROW * (first.bottom - first.top):
            rows.append([])
        rows[-1].append(line)
    return [sorted(row, key=lambda line: line.left) for row in rows]


def _gap(above: Sequence[Line], below: Sequence[Line]) -> float:
    return min(line.top for line in below) - max(line.bottom for line in above)


def _column_gap(lines: Sequence[Line]) -> float:
    """Where a free strip parts two columns of running text, in pixels; 0 for nowhere."""
    reach = 0.0
    ordered = sorted(lines, key=lambda line: line.left)
    for number, line in enumerate(ordered):
        if number and line.left > reach:
            left, right = ordered[:number], ordered[number:]
            if _is_column(left) and _is_column(right):
                return reach
        reach = max(reach, line.right)
    return 0.0


def _is_column(lines: Sequence[Line]) -> bool:
    """Whether lines stand below one another and most fill the width."""
    if len(lines) < _LEAST_COLUMN:
        return False
    width = max(line.right for line in lines) - min(line.left for line in lines)
    full = sum(line.right - line.left >= _FILLED * width for line in lines)
    return 2 * full >= len(lines)
