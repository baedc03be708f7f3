"""A passage that begins inside a table is read below its header, and offsets stay true."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from glm_rag.citations import align
from glm_rag.packing import pack, plain_block
from glm_rag.prompting import render_passages
from glm_rag.settings import SplittingSettings
from glm_rag.templates import TEMPLATES
from glm_rag.types import ExtractedDocument
from glm_rag_ingest.splitting import split

HEADER = "| City | Code |"


def words(text: str) -> int:
    return len(text.split())


def table(names: list[str]) -> str:
    rows = [f"| {name} | {i * 37 + 11} |" for i, name in enumerate(names)]
    return "\n".join([HEADER, "| --- | --- |", *rows])


def chunks_of(text: str, chunk_tokens: int, source: str = "a") -> list[Document]:
    extracted = ExtractedDocument(source, "Cities", text, "0", 1, 0.0, "text/markdown", "x")
    return [
        Document(
            id=f"{source}{chunk.start}",
            page_content=chunk.text,
            metadata={
                "source": source,
                "title": "Cities",
                "start": chunk.start,
                "end": chunk.end,
                "table_header": chunk.table_header,
            },
        )
        for chunk in split(
            extracted, words, SplittingSettings(chunk_tokens=chunk_tokens, overlap_tokens=0), 512
        )
    ]


def pack_words(documents, **options):
    options = {"budget": 10_000, "max_passages": 10, "relative_score": 0.0} | options
    return pack(documents, count_tokens=words, **options)


NAMES = [f"Town{i}" for i in range(40)]


@pytest.mark.parametrize("render", [plain_block, lambda p: render_passages(p, TEMPLATES["en"])])
def test_the_header_is_read_above_the_rows_and_counted(render):
    chunk = chunks_of(table(NAMES), 48)[1]
    (passage,) = pack_words([chunk], render=render).passages
    assert f"{HEADER}\n{passage.text}" in render([passage])
    assert passage.num_tokens == words(render([passage]))
    assert passage.text == chunk.page_content


def test_neighbours_are_joined_below_one_header():
    first, second, third, *_ = chunks_of(table(NAMES), 48)
    (passage,) = pack_words([third, second]).passages
    assert plain_block([passage]).count("City") == 1
    (passage,) = pack_words([third, second, first]).passages
    assert passage.table_header == ""
    assert plain_block([passage]).count("City") == 1
    assert passage.text == table(NAMES)[: third.metadata["end"]]


def test_the_same_figures_below_another_header_are_another_passage():
    one, other = (
        Document(
            page_content="| 1 | 2 |", metadata={"source": name, "table_header": f"| {name} | b |"}
        )
        for name in ("x", "y")
    )
    assert len(pack_words([one, other]).passages) == 2
    shown = pack_words([one]).passages
    assert pack_words([one], shown=shown).passages == ()
    assert [p.document for p in pack_words([one, other], shown=shown).passages] == [other]


@settings(max_examples=60)
@given(
    names=st.lists(st.text("ab 中.|-", max_size=20), min_size=1, max_size=30),
    chunk_tokens=st.integers(16, 60),
    data=st.data(),
)
def test_passages_of_tables_stay_true_to_their_document(names, chunk_tokens, data):
    text = f"# Cities\n\nIntro here.\n\n{table(names)}\n\nText below it. And more."
    chunks = chunks_of(text, chunk_tokens)
    chosen = data.draw(st.lists(st.sampled_from(chunks), unique_by=lambda c: c.id))
    packed = pack_words(chosen, budget=data.draw(st.integers(0, 200)))
    for passage in packed.passages:
        metadata = passage.document.metadata
        assert passage.document.page_content == text[metadata["start"] : metadata["end"]]
        assert passage.document.page_content.startswith(passage.text)
        assert plain_block([passage]).count(HEADER) <= 1
        if passage.text.startswith("| Town"):
            assert passage.table_header == HEADER
    assert packed.num_tokens <= packed.budget


def test_a_citation_opens_to_the_row_in_the_document():
    text = table(NAMES)
    chunks = chunks_of(text, 48)
    packed = pack_words([chunks[2]])
    row = packed.passages[0].text.split("\n")[1]
    name, code = (cell.strip() for cell in row.strip("|").split("|"))
    answer = f"The code of the city {name} is {code}."
    (citation,) = align(answer, packed.passages, question=f"What is the code of {name}?")
    assert text[citation.start : citation.end] == citation.quote
    assert row in citation.quote


def test_a_row_is_about_its_header_whether_that_is_above_the_passage_or_in_it():
    text = table(NAMES)
    (whole,) = pack_words(chunks_of(text, 500)).passages
    answer = "The code of the city Town7 is 270."
    (citation,) = align(answer, [whole], question="What is the code of Town7?")
    assert citation.quote == "| Town7 | 270 |"
