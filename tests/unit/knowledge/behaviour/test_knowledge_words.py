"""Keyword search is ours on every backend: words, Chinese bigrams, width, case and variants."""

import numpy as np
import pytest

from glm_rag.text import query_terms

PASSAGES = {
    "leave": "员工可享受十六周的育儿假，须提前三十天申请。",
    "canteen": "食堂早上八点开门，提供早餐和午餐。",
    "english": "The ABC-42 printer is on floor 3; don't unplug it.",
    "mixed": "请用 GPU 服务器训练模型，见 README 文件。",
    "variant": "軟體開發部門的電腦由資訊中心維護。",
}
FAR = -np.ones(8)


@pytest.fixture
def passages(kb, make):
    for name, text in PASSAGES.items():
        kb.put_document(*make(name, text, size=200))
    return kb


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("育儿假", "leave"),
        ("育儿", "leave"),
        ("申请", "leave"),
        ("早餐", "canteen"),
        ("ＡＢＣ printer", "english"),
        ("PRINTER", "english"),
        ("gpu", "mixed"),
        ("软体开发", "variant"),
        ("电脑", "variant"),
    ],
)
def test_a_word_finds_its_passage_and_is_counted(passages, question, found):
    terms = query_terms(question)
    asked = passages.candidates(FAR, terms, limit=1)
    counted = {c.document.metadata["source"]: c.term_counts for c in asked.candidates}
    assert set(counted[found]) & set(terms)
    assert asked.document_frequency == {
        term: sum(term in query_terms_of(text) for text in PASSAGES.values())
        for term in terms
        if any(term in query_terms_of(text) for text in PASSAGES.values())
    }


def query_terms_of(text):
    from glm_rag.text import terms

    return set(terms(text))


def test_totals_are_those_of_all_passages(passages):
    from glm_rag.text import terms

    found = passages.candidates(FAR, [], limit=1)
    lengths = [len(terms(text)) for text in PASSAGES.values()]
    assert found.num_chunks == len(PASSAGES)
    assert found.mean_terms == pytest.approx(sum(lengths) / len(lengths))
    passages.remove("leave")
    lengths = lengths[1:]
    found = passages.candidates(FAR, ["育儿"], limit=1)
    assert (found.num_chunks, found.document_frequency) == (len(PASSAGES) - 1, {})
    assert found.mean_terms == pytest.approx(sum(lengths) / len(lengths))


@pytest.mark.parametrize("odd", ['"', "a OR b", "t*", "NEAR", "\\", "👍", "'; drop", "{v}", "%"])
def test_odd_words_neither_break_a_search_nor_find_everything(passages, odd):
    found = passages.candidates(FAR, [odd], limit=1, where={"title": odd})
    assert found.candidates == ()
    assert passages.candidates(FAR, [odd], limit=1).document_frequency == {}
