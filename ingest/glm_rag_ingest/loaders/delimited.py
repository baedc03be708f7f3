"""Delimited text (.csv, .tsv): rows as a Markdown table; what is no table stays text."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator

from glm_rag_ingest.loaders.base import Extracted, clean_text
from glm_rag_ingest.loaders.encoding import decode
from glm_rag_ingest.loaders.tables import sheet_markdown

VERSION = "delimited/1"
MEDIA_TYPE = "text/csv"
SUFFIXES = (".csv", ".tab", ".tsv")

_DELIMITERS = ",\t;|"
_STATED = re.compile(r"sep=([,\t;|])\r?\n")  # Excel's own first line
_SAMPLE_ROWS = 200
_LEAST_ALIKE = 0.8  # share of the rows that must have the commonest number of cells
_LONGEST_CELL = 1 << 30  # the csv module refuses cells of more than 128 KiB by itself


def extract(data: bytes) -> Extracted:
    """Decode and find the delimiter; cells may hold line feeds, and quotes twice."""
    text = decode(data)
    stated = _STATED.match(text)
    delimiter = stated.group(1) if stated else _delimiter(text)
    text = text[stated.end() :] if stated else text
    if not delimiter:
        return Extracted(clean_text(text))
    return Extracted(clean_text(sheet_markdown(lambda: _rows(text, delimiter))))


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(_LONGEST_CELL)
    # NUL stands in files that were cut off while they were written.
    return csv.reader(io.StringIO(text.replace("\0", ""), newline=""), delimiter=delimiter)


def _delimiter(text: str) -> str:
    """The delimiter that gives most rows the same number of cells, or an empty string."""
    found = {delimiter: _score(text, delimiter) for delimiter in _DELIMITERS}
    best = max(found, key=lambda delimiter: found[delimiter])
    return best if found[best] > (0.0, 0) else ""


def _score(text: str, delimiter: str) -> tuple[float, int]:
    """Share of rows alike, and their cells; zeros for a delimiter that makes no table."""
    widths: Counter[int] = Counter()
    for row in _rows(text, delimiter):
        if row:
            widths[len(row)] += 1
        if widths.total() >= _SAMPLE_ROWS:
            break
    if not widths:
        return 0.0, 0
    width, count = max(widths.items(), key=lambda item: (item[1], item[0]))
    share = count / widths.total()
    is_table = width > 1 and share >= _LEAST_ALIKE and widths.total() > 1
    return (share, width) if is_table else (0.0, 0)
