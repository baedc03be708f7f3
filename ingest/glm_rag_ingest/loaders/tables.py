"""Tables as Markdown rows, the form language models read best."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_rows(rows: Sequence[Sequence[str]], *, has_header: bool) -> str:
    """One `| a | b |` line per row; columns and rows without any text are left out.

    With `has_header` a `| --- |` line follows the first row.
    """
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        return ""
    width = max(len(row) for row in rows)
    padded = [[*row, *[""] * (width - len(row))] for row in rows]
    kept = [column for column in range(width) if any(row[column].strip() for row in padded)]
    lines = ["| " + " | ".join(_cell(row[column]) for column in kept) + " |" for row in padded]
    if has_header and len(lines) > 1:
        lines.insert(1, "|" + " --- |" * len(kept))
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
