"""Tables as Markdown rows, the form language models read best."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

# Numbers, dates, amounts and shares: what stands below a header, not in one. Years are both.
_VALUE = re.compile(
    r"[-+(]?[$€£¥]? ?\d[\d.,\s]*(?:[eE][-+]?\d+)?[%)€元]?"
    r"|\d{4}[-/.年]\d{1,2}(?:[-/.月]\d{1,2}日?)?(?:[T ]\d{1,2}:.*)?"
    r"|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?|TRUE|FALSE"
)
_YEAR = re.compile(r"(?:19|20)\d\d")


def markdown_rows(rows: Sequence[Sequence[str]], *, has_header: bool) -> str:
    """One `| a | b |` line per row; columns and rows without any text are left out.

    With `has_header` a `| --- |` line follows the first row.
    """
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    columns: set[int] = set()
    for row in rows:
        columns.update(_filled(row))
    kept = sorted(columns)
    lines = [_line(row, kept) for row in rows]
    if has_header and len(lines) > 1:
        lines.insert(1, _rule(kept))
    return "\n".join(lines)


@dataclass(slots=True)
class _Block:
    """Rows of a sheet that belong together: `titles` lines of one cell, then a table."""

    start: int
    end: int
    titles: int
    columns: set[int]
    has_header: bool = False
    head: tuple[str, ...] = ()
    second: tuple[str, ...] = ()


def sheet_markdown(read: Callable[[], Iterable[Sequence[str]]]) -> str:
    """The tables of a sheet: empty rows part them, and lines of one cell above are their titles.

    A table's first row is its header when it is filled and holds no numbers or dates. Rows below
    an empty row that have neither title nor header of their own go on with the table above.

    Args:
        read: gives the rows from the first on, each time it is called; it is called twice, so
            that a large sheet never has to be in memory as cells.
    """
    blocks = _blocks(read())
    lines: list[str] = []
    pending = iter(blocks)
    block = next(pending, None)
    for number, row in enumerate(read()):
        if block is None:
            break
        if block.start <= number < block.end and any(cell.strip() for cell in row):
            lines += _block_lines(block, number, row)
        if number == block.end - 1:
            lines.append("")
            block = next(pending, None)
    return "\n".join(lines).strip("\n")


def _block_lines(block: _Block, number: int, row: Sequence[str]) -> Iterator[str]:
    first = block.start + block.titles
    if number < first:
        yield " ".join(" ".join(row).split())
        if number == first - 1 and block.columns:
            yield ""
        return
    kept = sorted(block.columns)
    yield _line(row, kept)
    if block.has_header and number == first:
        yield _rule(kept)


def _blocks(rows: Iterable[Sequence[str]]) -> list[_Block]:
    blocks: list[_Block] = []
    current: _Block | None = None
    for number, row in enumerate(rows):
        filled = _filled(row)
        if not filled:
            _close(blocks, current)
            current = None
            continue
        current = current or _Block(number, number, 0, set())
        current.end = number + 1
        if len(filled) == 1 and not current.columns:
            current.titles += 1
            continue
        if not current.columns:
            current.head = tuple(row)
        elif not current.second:
            current.second = tuple(row)
        current.columns.update(filled)
    _close(blocks, current)
    return blocks


def _close(blocks: list[_Block], block: _Block | None) -> None:
    if block is None:
        return
    before = blocks[-1] if blocks else None
    block.has_header = bool(block.second) and looks_like_header(block.head, block.columns)
    if before is None or not _goes_on(block, before):
        blocks.append(block)
        return
    before.columns |= block.columns
    before.end = block.end


def _goes_on(block: _Block, before: _Block) -> bool:
    """Whether a block is more of the table before it: no title, no wider, no header of its own.

    Text above values is a header; text above text may be two rows like those before.
    """
    if block.titles or not before.columns or max(block.columns) > max(before.columns):
        return False
    above_values = any(_is_value(cell) for cell in block.second)
    return not (block.has_header and (above_values or block.head == before.head))


def looks_like_header(row: Sequence[str], columns: Iterable[int]) -> bool:
    """Whether a row names the columns: more than half filled, all different, none a value."""
    wanted = list(columns)
    names = [row[i].strip() for i in wanted if i < len(row) and row[i].strip()]
    if 2 * len(names) <= len(wanted) or len(set(names)) < len(names):
        return False
    return not any(_is_value(name) and not _YEAR.fullmatch(name) for name in names)


def _is_value(cell: str) -> bool:
    return _VALUE.fullmatch(cell.strip()) is not None


def _filled(row: Sequence[str]) -> list[int]:
    return [column for column, cell in enumerate(row) if cell and not cell.isspace()]


def _line(row: Sequence[str], kept: Sequence[int]) -> str:
    cells = (row[column] if column < len(row) else "" for column in kept)
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _rule(kept: Sequence[int]) -> str:
    return "|" + " --- |" * len(kept)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
