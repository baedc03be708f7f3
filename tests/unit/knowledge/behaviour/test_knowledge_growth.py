"""A passage that grew still opens to the stored characters, and so does every quote of it."""

import hashlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glm_rag.errors import ConfigError
from glm_rag.packing import pack
from glm_rag.retrieval.retriever import HybridRetriever
from glm_rag.types import Chunk, ExtractedDocument

WORDS = ["apple", "育儿假", "beta.", "河", "gamma", "\n\n", "日本語", "delta;", "😀"]


def always(text):
    return True


def a_document(source, text):
    digest = hashlib.sha256(text.encode()).hexdigest()
    return ExtractedDocument(source, source, text, digest, len(text), 1.5, "text/plain", "1")


@pytest.fixture
def stored(kb):
    """Six chunks of ten characters that overlap by two; sections of the first four and the rest."""
    text = "".join(f"{n:02d}345678" for n in range(7))[:50]
    chunks = [
        Chunk(
            start=8 * n,
            end=8 * n + 10,
            text=text[8 * n : 8 * n + 10],
            page=n // 2 + 1,
            section=(0, 34) if n < 4 else (32, 50),
            table_header="| h |" if n == 1 else "",
        )
        for n in range(6)
    ]
    kb.put_document(a_document("doc", text), chunks)
    return kb, text, kb.get_chunks("doc")


def test_neighbours_are_the_chunk_before_and_the_one_behind_of_the_same_section(stored):
    kb, _, chunks = stored
    spans = [
        (grown.metadata["start"], grown.metadata["end"])
        for grown in (kb.grow(chunk, "neighbours", fits=always) for chunk in chunks)
    ]
    assert spans == [(0, 18), (0, 26), (8, 34), (16, 34), (32, 50), (32, 50)]


def test_a_section_is_all_of_its_chunks_and_no_other(stored):
    kb, text, chunks = stored
    for chunk in chunks:
        grown = kb.grow(chunk, "section", fits=always)
        start, end = chunk.metadata["section"]
        assert grown.page_content == text[start:end]


def test_a_grown_passage_keeps_its_id_and_knows_its_parts(stored):
    kb, _, chunks = stored
    grown = kb.grow(chunks[2], "neighbours", fits=always)
    assert grown.id == chunks[2].id
    assert grown.metadata["parts"] == [
        {"id": c.id, **{key: c.metadata[key] for key in ("start", "end", "page")}}
        for c in chunks[1:4]
    ]
    assert grown.metadata["table_header"] == "| h |"
    assert "chunk_index" not in grown.metadata
    assert "parts" not in chunks[2].metadata


def test_the_cap_holds_for_header_and_text_and_only_whole_chunks_are_added(stored):
    kb, _, chunks = stored
    for most in range(60):
        grown = kb.grow(chunks[2], "section", fits=lambda shown, most=most: len(shown) <= most)
        header = grown.metadata.get("table_header") or ""
        assert grown == chunks[2] or len(f"{header}\n{grown.page_content}".strip()) <= most
        starts, ends = ({c.metadata[key] for c in chunks} for key in ("start", "end"))
        assert grown.metadata["start"] in starts
        assert grown.metadata["end"] in ends


def test_chunks_that_others_hold_are_not_added(stored):
    kb, _, chunks = stored
    grown = kb.grow(chunks[1], "section", fits=always, without={chunks[2].id})
    assert (grown.metadata["start"], grown.metadata["end"]) == (0, 18)


def test_a_deleted_neighbour_ends_the_growth(stored):
    kb, _, chunks = stored
    kb.delete([chunks[1].id])
    grown = kb.grow(chunks[2], "section", fits=always)
    assert (grown.metadata["start"], grown.metadata["end"]) == (16, 34)


def test_what_has_changed_or_belongs_to_no_file_comes_back_as_it_is(stored):
    kb, _, chunks = stored
    changed = chunks[2].model_copy(update={"page_content": "0123456789"})
    assert kb.grow(changed, "section", fits=always) == changed
    (key,) = kb.add_texts(["alone"])
    (alone,) = kb.get_by_ids([key])
    assert kb.grow(alone, "section", fits=always) == alone
    kb.remove("doc")
    assert kb.grow(chunks[2], "neighbours", fits=always) == chunks[2]


def test_a_long_document_without_sections_grows_to_neighbours_only(kb, make):
    kb.put_document(*make("doc", "x" * 2000))
    chunks = kb.get_chunks("doc")
    assert kb.grow(chunks[50], "section", fits=always) == chunks[50]
    assert len(kb.grow(chunks[50], "neighbours", fits=always).page_content) == 60


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(st.sampled_from(WORDS), min_size=8, max_size=40),
    size=st.integers(3, 9),
    overlap=st.integers(0, 2),
    hits=st.lists(st.integers(0, 50), min_size=1, max_size=4),
    reach=st.sampled_from(["neighbours", "section"]),
    cap=st.integers(5, 60),
)
def test_every_quote_of_packed_grown_passages_opens_to_its_characters(
    open_kb, words, size, overlap, hits, reach, cap
):
    text = " ".join(words)
    cuts = range(0, len(text), size)
    section = (0, len(text))
    chunks = [
        Chunk(a, b := min(len(text), a + size + overlap), text[a:b], section=section) for a in cuts
    ]
    kb = open_kb()
    kb.put_document(a_document("doc", text), chunks)
    stored = kb.get_chunks("doc")
    retriever = HybridRetriever(store=kb, expand=reach, expand_tokens=16)
    retriever.expand_tokens = cap  # below what users may set
    found = [stored[i % len(stored)] for i in dict.fromkeys(h % len(stored) for h in hits)]
    from glm_rag.retrieval.ranking import Ranked

    grown = retriever._grown([Ranked(document, 1.0) for document in found])
    parts = [part["id"] for item in grown for part in item.document.metadata.get("parts", [])]
    assert len(parts) == len(set(parts))
    held = set(parts) | {item.document.id for item in grown}
    assert {document.id for document in found} <= held
    packed = pack([item.as_document() for item in grown], count_tokens=len, budget=10**6)
    for passage in packed.passages:
        metadata = passage.document.metadata
        assert text[metadata["start"] : metadata["end"]] == passage.text
        for part in metadata.get("parts", []):
            assert metadata["start"] <= part["start"] < part["end"] <= metadata["end"]
    kb.remove("doc")


def test_a_hit_inside_a_grown_passage_is_not_shown_again(stored):
    kb, *_ = stored
    found = kb.as_retriever(k=6, expand="section").search("01345678 02345678")
    spans = sorted((d.document.metadata["start"], d.document.metadata["end"]) for d in found)
    assert spans == [(0, 34), (32, 50)]
    assert all("score" in item.document.metadata for item in found)


def test_a_store_that_cannot_grow_says_so(kb):
    class Other:
        embeddings = kb.embeddings
        embeddings_name = "other"

        def candidates(self, *arguments, **options):
            return kb.candidates(*arguments, **options)

    kb.add_texts(["one apple"])
    retriever = HybridRetriever(store=Other(), expand="section")
    with pytest.raises(ConfigError, match="cannot expand passages"):
        retriever.search("apple")
