"""The retriever's optional steps over a knowledge base whose embedder counts words."""

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings
from pydantic import ValidationError

from glm_rag.errors import ConfigError
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.text import terms

pytest.importorskip("faiss")

LEAVE = "Parental leave lasts sixteen weeks with full pay for fathers of twins."
AGAIN = "Parental leave lasts sixteen weeks with full pay for mothers of twins."
NOTICE = "Tell your manager three months before parental leave begins."
LAPTOP = "A broken laptop battery is replaced by the service desk in the basement."
FILLER = [f"matter{n} of budget{n} concerns department{n} and travel{n}" for n in range(30)]
LONG = (
    "I joined the Berlin office in March 2021 as a part-time accountant in payroll, near the "
    "station. Before that I worked in Hamburg, Bremen, Kiel, Munich, Dresden and Cologne for "
    "various insurance firms, banks, shops. "
    "How many weeks of parental leave do fathers of twins get? "
    "Which desk replaces a broken laptop battery?"
)


class WordEmbeddings(Embeddings):
    """A vector of word counts, hashed to 512 places."""

    name = "words"
    dimension = 512

    def embed_query(self, text):
        vector = np.full(512, 1e-6)
        for term in terms(text):
            vector[int.from_bytes(term.encode(), "big") % 509] += 1
        return (vector / np.linalg.norm(vector)).tolist()

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


@pytest.fixture(scope="module")
def kb(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with KnowledgeBase.open("kb", home=home, embeddings=WordEmbeddings(), create=True) as opened:
        opened.add_texts([LEAVE, AGAIN, NOTICE, LAPTOP, *FILLER])
        yield opened


def found(kb, question, **options):
    return [item.document.page_content for item in kb.as_retriever(**options).search(question)]


def test_everything_off_is_the_order_of_the_defaults(kb):
    question = "How many weeks of parental leave?"
    plain = kb.as_retriever(k=8).search(question)
    off = kb.as_retriever(
        k=8, mmr=0, expand="none", reranker=None, multi_query=False, filter={}
    ).search(question)
    assert off == plain


def test_mmr_takes_another_passage_before_one_that_says_the_same(kb):
    question = "How many weeks is parental leave for fathers of twins?"
    assert set(found(kb, question, k=2)) == {LEAVE, AGAIN}
    assert found(kb, question, k=2, mmr=0.5) == [LEAVE, NOTICE]
    scores = [item.score for item in kb.as_retriever(k=9, mmr=0.5).search(question)]
    assert scores == sorted(scores, reverse=True)


def test_a_long_question_finds_what_each_of_its_sentences_asks_for(kb):
    assert set(found(kb, LONG, k=3)) >= {LEAVE, LAPTOP}
    found_each = kb.as_retriever(k=1).search("Which desk replaces a broken laptop battery?")
    best = {i.document.page_content: i.score for i in kb.as_retriever(k=5).search(LONG)}
    assert best[LAPTOP] == pytest.approx(found_each[0].score)
    whole = {
        i.document.page_content: i.score
        for i in kb.as_retriever(k=5, multi_query=False).search(LONG)
    }
    assert whole[LAPTOP] < best[LAPTOP]


class Lengths:
    """Prefers short passages."""

    def __init__(self):
        self.read = []

    def scores(self, question, documents):
        self.read.append((question, [document.page_content for document in documents]))
        return [-float(len(document.page_content)) for document in documents]


def test_a_reranker_reads_the_first_passages_and_orders_them(kb):
    question = "How many weeks of parental leave?"
    before = found(kb, question, k=6)
    reranker = Lengths()
    after = kb.as_retriever(k=6, reranker=reranker, rerank_first=3).search(question)
    texts = [item.document.page_content for item in after]
    assert reranker.read == [(question, before[:3])]
    assert texts == [*sorted(before[:3], key=len), *before[3:]]
    assert after[0].document.metadata["rerank_score"] == -float(len(texts[0]))
    assert "rerank_score" not in after[3].document.metadata


def test_a_reranker_brings_up_what_k_alone_would_have_cut_off(kb):
    question = "How many weeks of parental leave?"
    shortest = min(found(kb, question, k=8), key=len)
    assert found(kb, question, k=1, reranker=Lengths(), rerank_first=8) == [shortest]


def test_small_talk_wakes_no_reranker(kb):
    reranker = Lengths()
    assert found(kb, "Hello!", reranker=reranker) == []
    assert reranker.read == []


@pytest.mark.parametrize("wrong", [{"mmr": 1.5}, {"expand": "all"}, {"rerank_first": 0}])
def test_what_is_out_of_bounds_is_refused(kb, wrong):
    with pytest.raises(ValidationError):
        kb.as_retriever(**wrong)
    with pytest.raises(ConfigError, match="use k, candidates, filter, mmr"):
        kb.as_retriever(mmrr=1)
