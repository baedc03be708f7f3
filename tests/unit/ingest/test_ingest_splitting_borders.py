"""Where a text is cut: sections, paragraphs, items, sentences, in this order."""

from __future__ import annotations

import pytest
from splitting_laws import characters, check_laws, words

SENTENCE = "A sentence of some length is here."


def paragraph(count):
    return " ".join([SENTENCE] * count)


def test_a_chunk_at_least_half_full_ends_with_a_paragraph():
    text = "\n\n".join(paragraph(3) for _ in range(12))
    for chunk in check_laws(text, characters, 260, 0):
        assert text[chunk.end : chunk.end + 2] in {"\n\n", ""}
        assert len(chunk.text) * 2 >= 260 or chunk.end == len(text)


def test_a_paragraph_longer_than_half_a_chunk_is_cut_between_sentences():
    text = f"{SENTENCE}\n\n{paragraph(12)}"
    first, *_ = check_laws(text, characters, 260, 0)
    assert len(first.text) > 200
    assert all(chunk.text.endswith(".") for chunk in check_laws(text, characters, 260, 0))


def test_list_items_stay_whole():
    items = [f"- Item {i} has this. It has a second sentence. 第三句在此。" for i in range(20)]
    text = "\n".join(items)
    for chunk in check_laws(text, characters, 180, 0):
        assert set(chunk.text.split("\n")) <= set(items)


@pytest.mark.parametrize(
    "line", ["The steps are as follows:", "步骤如下：", "步骤如下", "See the list below."]
)
@pytest.mark.parametrize("below", ["- One item is here.", "```\ncode\n```", "| a | b |"])
def test_a_line_that_introduces_something_stays_with_it(line, below):
    for length in range(20, 120, 5):
        text = f"{'x' * length}.\n\n{line}\n\n{below}\n{below}"
        for chunk in check_laws(text, characters, 120, 0):
            assert not chunk.text.endswith(line)


def test_text_put_before_a_long_document_changes_only_the_chunks_near_it():
    paragraphs = [paragraph(1 + i * 7 % 5) + f" Number {i}." for i in range(200)]
    text = "\n\n".join(paragraphs)
    before = {chunk.text for chunk in check_laws(text, words, 120, 20)}
    for added in ("One line.\n\n", f"{paragraph(9)}\n\n"):
        after = check_laws(added + text, words, 120, 20)
        changed = [i for i, chunk in enumerate(after) if chunk.text not in before]
        assert max(changed) < 10


def test_the_section_of_a_chunk_is_the_smallest_heading_section_around_it():
    one, two = (f"## {name}\n\n{paragraph(9)}\n\n" for name in ("One", "Two"))
    head = f"# Book\n\n{paragraph(9)}\n\n"
    text = f"{head}{one}{two}# Other\n\n{SENTENCE}"
    sections = {text[slice(*chunk.section)] for chunk in check_laws(text, characters, 200, 0)}
    assert sections == {head, one, two, f"# Other\n\n{SENTENCE}"}


def test_small_sections_that_share_a_chunk_have_the_section_above_them():
    text = (
        "# Questions\n\n" + "\n\n".join(f"## Q{i}\n\nA{i}." for i in range(9)) + "\n\n# Other\n\nX."
    )
    (only,) = check_laws(text, words, 400, 0)
    assert only.section == (0, len(text))
    shared = [chunk for chunk in check_laws(text, words, 48, 0) if chunk.text.count("## Q") > 1]
    assert shared
    above = text[: text.index("# Other")]
    assert {text[slice(*chunk.section)] for chunk in shared} == {above}


def test_a_text_without_headings_is_one_section():
    text = paragraph(30)
    assert {c.section for c in check_laws(text, characters, 200, 0)} == {(0, len(text))}


def test_an_unclosed_fence_in_plain_text_is_decoration():
    text = f"~~~~~~~~\n\n{paragraph(30)}"
    chunks = check_laws(text, characters, 200, 0, media_type="text/plain")
    assert all(chunk.text.endswith(".") for chunk in chunks)
