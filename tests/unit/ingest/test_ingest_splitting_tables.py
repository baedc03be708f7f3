"""Tables are cut between rows, and every later piece knows its header."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from splitting_laws import characters, check_laws, check_tables, words

_CELL = st.text("ab 中文.。|\\-", max_size=12).map(
    lambda cell: " ".join(cell.replace("\\", "").split()).replace("|", "\\|")
)


def table(rows, *, has_header=True):
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    if has_header:
        lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)


@st.composite
def tables(draw):
    columns = draw(st.integers(1, 4))
    rows = st.lists(st.lists(_CELL, min_size=columns, max_size=columns), min_size=1, max_size=12)
    return table(draw(rows), has_header=draw(st.booleans()))


_TEXTS = st.lists(
    st.one_of(tables(), st.sampled_from(["# One", "As follows:", "A sentence. And another one."])),
    max_size=6,
).flatmap(lambda blocks: st.sampled_from(["\n\n", "\n"]).map(lambda gap: gap.join(blocks)))


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(_TEXTS, st.sampled_from([characters, words]), st.integers(16, 90))
@example(table([["a b", ""], ["", ""], ["x" * 40, "|".join("\\" * 9)]]), characters, 24)
def test_rows_stay_whole_and_carry_their_header_within_the_limit(text, count, chunk_tokens):
    check_tables(text, check_laws(text, count, chunk_tokens), count, chunk_tokens)


def test_every_later_piece_has_the_header_row_and_the_first_one_has_it_in_its_text():
    rows = [["City", "People"], *([f"Place {i}", str(i * 1000)] for i in range(30))]
    first, *later = check_laws(f"Intro.\n\n{table(rows)}", characters, 160, 30)
    assert "| City | People |" in first.text
    assert first.table_header == ""
    assert len(later) > 3
    assert {chunk.table_header for chunk in later} == {"| City | People |"}
    assert all("City" not in chunk.text for chunk in later)
    assert all(a.end + 1 == b.start for a, b in pairwise(later))


def test_a_header_that_would_crowd_out_the_rows_keeps_its_first_cells():
    rows = [[f"Column {i}" for i in range(20)], *([str(i)] * 20 for i in range(10))]
    chunks = check_laws(table(rows), characters, 120, 0)
    headers = {chunk.table_header for chunk in chunks if chunk.text.startswith("| 5")}
    assert headers == {"| Column 0 | Column 1 |"}


def test_a_header_without_a_short_first_cell_is_dropped():
    rows = [["long " * 20, "b"], *([f"row {i}", "x"] for i in range(30))]
    chunks = check_laws(table(rows), characters, 80, 0)
    assert {chunk.table_header for chunk in chunks} == {""}


def test_the_header_never_stands_at_the_end_of_a_chunk_without_a_row():
    rows = [["City", "People"], *([f"Place {i}", str(i)] for i in range(9))]
    for length in range(10, 60):
        text = f"{'x' * length}.\n\nThe cities are as follows:\n\n{table(rows)}"
        for chunk in check_laws(text, characters, 130, 0):
            assert not chunk.text.endswith(("| --- |", "| City | People |", "follows:"))


@pytest.mark.parametrize("length", range(0, 400, 23))
def test_text_below_a_table_knows_nothing_of_its_header(length):
    text = (
        f"{table([['City', 'People'], ['Here', 'x' * 30]])}\n\n{'Below it. ' * (length // 10)}End."
    )
    for chunk in check_laws(text, characters, 100, 20):
        assert not (chunk.table_header and not chunk.text.startswith("|"))


def test_a_sentence_end_inside_a_cell_does_not_cut_the_row():
    rows = [["A", "B"], *([f"One. Two! Three {i}?", "四。五。"] for i in range(12))]
    text = table(rows)
    lines = set(text.split("\n"))
    for chunk in check_laws(text, characters, 90, 20):
        assert set(chunk.text.split("\n")) <= lines
