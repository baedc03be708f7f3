"""Laws of packing over random documents, counted by tokenizers whose counts do not add up."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from glm_rag.citations import align
from glm_rag.errors import DocumentError
from glm_rag.packing import pack
from glm_rag.prompting import as_data, render_passages
from glm_rag.settings import SplittingSettings
from glm_rag.templates import TEMPLATES
from glm_rag.text import fold, sentence_spans
from glm_rag.types import Passage

_BPE = re.compile(r" ?[^\W\d_]+| ?\d| ?[^\w\s]+|\s+")
_HAN_RUN = re.compile(r"[\u3400-\u9fff]+|[^\u3400-\u9fff]+")


def like_smollm2(text: str) -> int:
    """Byte-level pieces: a word with the space before it, in parts of six; all spaces are one."""
    return sum(-(-len(piece.encode()) // 6) for piece in _BPE.findall(text))


def like_chatglm2(text: str) -> int:
    """Sentencepiece: pairs of Han characters are one, a dummy space begins the text."""
    runs = _HAN_RUN.findall(text)
    return 1 + sum(-(-len(run) // (2 if "\u3400" <= run[0] <= "\u9fff" else 4)) for run in runs)


COUNTERS = st.sampled_from([like_smollm2, like_chatglm2])
LANGUAGES = st.sampled_from(["en", "zh"])
WORDS = ["leave", "weeks", "canteen", "The", "a", "育儿假", "兼职员工", "26", "3.5", "[1]"]
ENDS = [". ", "! ", "。", "\n\n", ", ", " "]


def chunk_of(text: str, source: str, start: int, end: int, score: float) -> Document:
    metadata = {"source": source, "title": source, "start": start, "end": end, "score": score}
    return Document(id=f"{source}:{start}:{end}", page_content=text[start:end], metadata=metadata)


@st.composite
def found(draw) -> tuple[dict[str, str], list[Document]]:
    """Documents and chunks of them that overlap, touch, repeat or stand apart; no two score alike.

    Chunks end behind any piece, or one character before: inside a word, before a full stop.
    """
    stored, pieces = {}, {}
    for source in ("a", "b")[: draw(st.integers(1, 2))]:
        pairs = st.tuples(st.sampled_from(WORDS), st.sampled_from(ENDS)).map("".join)
        pieces[source] = draw(st.lists(pairs, min_size=8, max_size=20))
        stored[source] = "".join(pieces[source])
    chunks = []
    for number in range(draw(st.integers(1, 8))):
        source = draw(st.sampled_from(sorted(stored)))
        first = draw(st.integers(0, len(pieces[source]) - 1))
        last = min(first + draw(st.integers(1, 4)), len(pieces[source]))
        start, end = (sum(map(len, pieces[source][:n])) for n in (first, last))
        end = max(start + 1, end - draw(st.integers(0, 1)))
        score = draw(st.sampled_from([0.2, 0.8, 0.9, 0.95, 1.0])) + number / 1000
        chunks.append(chunk_of(stored[source], source, start, end, score))
    return stored, chunks


def packed_by(chunks, count, language, budget, **options):
    def render(passages):
        return render_passages(passages, TEMPLATES[language])

    return (
        pack(chunks, count_tokens=count, budget=budget, render=render, **options),
        lambda passages: count(render(passages)),
    )


def spans_of(passages) -> dict[str, list[tuple[int, int]]]:
    spans: dict[str, list[tuple[int, int]]] = {}
    for passage in passages:
        metadata = passage.document.metadata
        spans.setdefault(metadata["source"], []).append((metadata["start"], metadata["end"]))
    return spans


OPTIONS = st.fixed_dictionaries(
    {"max_passages": st.integers(1, 5), "relative_score": st.sampled_from([0.0, 0.8])}
)
laws = settings(max_examples=150)


@laws
@given(found(), COUNTERS, LANGUAGES, st.integers(0, 8), OPTIONS)
def test_never_over_budget_by_one_token(given_, count, language, short, options):
    whole, _ = packed_by(given_[1], count, language, 10**6, **options)
    budget = max(0, whole.num_tokens - short)
    packed, size = packed_by(given_[1], count, language, budget, **options)
    passages = packed.passages
    assert packed.num_tokens == (size(passages) if passages else 0) <= budget == packed.budget
    assert len(passages) <= options["max_passages"]
    assert [p.num_tokens for p in passages] == [size([p]) for p in passages]
    assert [p.index for p in passages] == list(range(1, len(passages) + 1))


@laws
@given(found(), COUNTERS, LANGUAGES, OPTIONS)
def test_the_best_passage_enters_whole_where_it_fits_to_the_token(given_, count, language, options):
    chunks = [chunk for chunk in given_[1] if chunk.page_content.strip()]
    best = max(chunks, key=lambda chunk: chunk.metadata["score"], default=None)
    if best is None:
        return
    _, size = packed_by([], count, language, 0)
    budget = size([Passage(1, best, best.page_content, 0)])
    packed, _ = packed_by(given_[1], count, language, budget, **options)
    assert packed.passages[0].document.id == best.id
    assert not packed.passages[0].truncated


@laws
@given(found(), COUNTERS, LANGUAGES, st.integers(0, 300), OPTIONS)
def test_a_passage_is_cut_only_where_no_whole_one_fits(given_, count, language, budget, options):
    chunks = given_[1]
    packed, size = packed_by(chunks, count, language, budget, **options)
    good = [chunk for chunk in chunks if chunk.page_content.strip()]
    best = max((chunk.metadata["score"] for chunk in good), default=0.0)
    good = [c for c in good if c.metadata["score"] >= options["relative_score"] * best]
    whole = [c for c in good if size([Passage(1, c, c.page_content, 0)]) <= budget]
    if whole:
        assert packed.passages
        assert not any(passage.truncated for passage in packed.passages)
    elif packed.passages:
        (cut,) = packed.passages
        assert cut.truncated
        assert cut.document.page_content.startswith(cut.text)
        assert 0 < len(cut.text) < len(cut.document.page_content)


@laws
@given(found(), COUNTERS, LANGUAGES, st.integers(0, 300), OPTIONS)
def test_no_text_is_repeated(given_, count, language, budget, options):
    packed, _ = packed_by(given_[1], count, language, budget, **options)
    for spans in spans_of(packed.passages).values():
        # Not even touching: neighbours are one passage.
        assert all(one[1] < other[0] for one, other in pairwise(sorted(spans)))
    keys = ["".join(fold(passage.text).split()) for passage in packed.passages]
    assert len(set(keys)) == len(keys)


@laws
@given(found(), COUNTERS, LANGUAGES, st.integers(0, 300), OPTIONS, st.randoms())
def test_the_order_is_stable(given_, count, language, budget, options, random):
    chunks = given_[1]
    packed, _ = packed_by(chunks, count, language, budget, **options)
    again, _ = packed_by(chunks, count, language, budget, **options)
    assert again == packed
    random.shuffle(chunks)
    assert packed_by(chunks, count, language, budget, **options)[0] == packed
    # Best first; behind it the passages of a document stand as in the document.
    passages = packed.passages
    scores = [p.document.metadata["score"] for p in passages]
    assert not scores or scores[0] == max(scores)
    for spans in spans_of(passages[1:]).values():
        assert spans == sorted(spans)


@laws
@given(found(), COUNTERS, LANGUAGES, st.integers(0, 300), OPTIONS, st.randoms())
def test_every_offset_opens_to_the_stored_characters(
    given_, count, language, budget, options, random
):
    stored, chunks = given_
    packed, _ = packed_by(chunks, count, language, budget, **options)
    check_offsets(stored, packed.passages, random)


def check_offsets(stored, passages, random) -> int:
    """Passages and the citations of an answer made of their sentences; how many there were."""
    sentences = []
    for passage in passages:
        metadata = passage.document.metadata
        text = stored[metadata["source"]]
        assert text[metadata["start"] : metadata["end"]] == passage.document.page_content
        assert text.startswith(passage.text, metadata["start"])
        for part in metadata.get("parts", []):
            assert metadata["start"] <= part["start"] < part["end"] <= metadata["end"]
        sentences += [passage.text[s:e] for s, e in sentence_spans(passage.text)]
    random.shuffle(sentences)
    answer = " ".join(sentences[:3])
    citations = align(answer, passages, question="")
    for citation in citations:
        assert stored[citation.source][citation.start : citation.end] == citation.quote
        assert answer[citation.answer_start : citation.answer_end].strip()
    return len(citations)


# ---------------------------------------------------------------- real documents


@pytest.fixture(scope="module")
def real(test_data):
    """All real documents that can be read: chunks of their beginning and of their middle."""
    from glm_rag_ingest import loaders
    from glm_rag_ingest.splitting import split

    stored, chunks, unread = {}, [], []
    for path in sorted((test_data / "documents").iterdir()):
        try:
            extracted = loaders.load(path).documents[0]
        except DocumentError:
            unread.append(path.name)
            continue
        stored[path.name] = extracted.text
        cut = split(extracted, like_smollm2, SplittingSettings(chunk_tokens=120), 512)
        middle = max(20, len(cut) // 2)
        for chunk in [*cut[:20], *cut[middle : middle + 20]]:
            one = chunk_of(extracted.text, path.name, chunk.start, chunk.end, 1.0)
            one.metadata["table_header"] = chunk.table_header
            chunks.append(one)
    assert len(stored) >= 24, unread
    return stored, chunks


@pytest.mark.slow
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(COUNTERS, LANGUAGES, st.integers(20, 900), st.integers(1, 6), st.randoms())
def test_the_laws_hold_for_real_documents(real, count, language, budget, most, random):
    stored, chunks = real
    picked = random.randrange(len(chunks))
    near = chunks[picked : picked + 3]
    ranked = [*near, *random.sample(chunks, 8)]
    random.shuffle(ranked)
    for place, chunk in enumerate(ranked):
        chunk.metadata["score"] = 1.0 - place / 100
    packed, size = packed_by(ranked, count, language, budget, max_passages=most, relative_score=0.0)
    assert packed.num_tokens == (size(packed.passages) if packed.passages else 0) <= budget
    assert len(packed.passages) <= most
    whole = [c for c in ranked if size([Passage(1, c, c.page_content, 0)]) <= budget]
    assert any(p.truncated for p in packed.passages) == (not whole and bool(packed.passages))
    for spans in spans_of(packed.passages).values():
        assert all(one[1] <= other[0] for one, other in pairwise(sorted(spans)))
    check_offsets(stored, packed.passages, random)
    shown = render_passages(packed.passages, TEMPLATES[language])
    assert all(as_data(passage.text) in shown for passage in packed.passages)
