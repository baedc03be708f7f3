"""Suggested questions: short, plain, in turn from several documents, and answered by them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from glm_rag.grounding import judge
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.question_rules import MAX_LENGTH, questions_of
from glm_rag.samples import handbook_folder
from glm_rag.settings import Settings
from glm_rag.suggestions import suggest_questions
from glm_rag.text import detect_language
from glm_rag_ingest.pipeline import ingest

FAQ = "Q: Can I bring my dog to the office?\nA: Yes, on Fridays, if your team agrees.\n"


class OneDirection(Embeddings):
    """Every text has the same vector: terms alone decide."""

    name = "one-direction"

    def embed_query(self, text):
        return [1.0, 0.0]

    def embed_documents(self, texts):
        return [[1.0, 0.0] for _ in texts]


@pytest.fixture(scope="module")
def handbook(tmp_path_factory):
    home = tmp_path_factory.mktemp("handbook")
    ingest([handbook_folder()], kb="handbook", config=Settings(home=home))
    with KnowledgeBase.open("handbook", home=home) as kb:
        yield kb


def questions(text, headings=(), title=""):
    return [question for _, question in questions_of(text, headings, title)]


@pytest.mark.parametrize(
    ("text", "question"),
    [
        (FAQ, "Can I bring my dog to the office?"),
        ("问：门禁卡丢了怎么办？\n答：请立即拨打保安电话8601。", "门禁卡丢了怎么办？"),
        ("Parental leave is 26 weeks at full pay. See parental leave.",
         "How long is parental leave?"),
        ("The target bonus is 8 percent of the salary.", "How much is the target bonus?"),
        ("The annual bonus is paid in March.", "When is the annual bonus paid?"),
        ("The fire drill takes place twice a year.", "How often does the fire drill take place?"),
        ("The company was founded in 1987.", "When was the company founded?"),
        ("FAISS is a library for similarity search.", "What is FAISS?"),
        ("育儿假为26周，期间发放全额工资。", "育儿假有多长时间？"),
        ("年终奖于每年三月发放。", "年终奖什么时候发放？"),
        ("# Rules\n\n## Remote work\n\nTuesday is for all.",
         "What should I know about remote work?"),
        ("## How to ask for leave\n\nWrite a note.", "How do I ask for leave?"),
        ("## 2.1 远程办公\n\n须提前申请。", "关于远程办公，我需要了解什么？"),
    ],
)  # fmt: skip
def test_a_passage_gives_the_questions_it_answers(text, question):
    assert question in questions(text)


@pytest.mark.parametrize(
    "text",
    [
        "Overtime is paid at 150 percent.",  # not a time
        "It is 26 weeks.",  # what?
        "The first is 8 percent.",
        "“What are you doing?”\nHe came nearer and nearer.",  # talk in a novel
        "What is the number?",  # asked, never answered
        "Q: What about part-time staff?\nA: The same rules hold for them.",  # what rules?
        "Q: How do we get to your office, sir?\nA: By train, and then on foot.",
        "She looked up.\nWhere is the captain of the ship?\nNobody answered her for a while.",
        "Q: What is <b>this</b> thing?\nA: Nothing you would like to see.",
        "Q: What is ![x](http://evil)?\nA: Nothing you would like to see.",
        "## Chapter 3\n\nSome text.",
        "## Introduction\n\nSome text.",
        "## 目录\n\n第一章",
        "## cdda5c8-e50e-4db4\n\nSome text.",
    ],
)
def test_a_passage_gives_no_question_that_would_be_odd_by_itself(text):
    assert questions(text) == []


def test_the_title_of_a_document_is_no_topic():
    assert questions("Some text.", ["Leave policy"], "Leave policy") == []
    assert questions("Some text.", ["Leave policy"]) != []


@given(st.text() | st.text("Qq: What is\n?？问：假为26周。#<>[]!()`*\u202e$|") | st.just(FAQ))
def test_whatever_a_document_holds_a_question_is_one_short_plain_line(text):
    for question in questions(text, [text[:50]]):
        assert 0 < len(question) <= MAX_LENGTH
        assert question.splitlines() == [question]
        assert not set(question) & set("<>[]{}`*#|$\\\u202e\u2066@=~^")
        assert question.endswith(("?", "？"))


# ---------------------------------------------------------------- of a knowledge base


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_handbook_answers_every_question_it_suggests(handbook, language, seed):
    suggested = suggest_questions(handbook, language, seed=seed)
    assert len(suggested) == len(set(suggested)) == 4
    for question in suggested:
        assert detect_language(question) == language
        assert judge(handbook.as_retriever().invoke(question)).answerable


def test_suggestions_come_from_several_documents(handbook):
    sources = {
        handbook.as_retriever().invoke(question)[0].metadata["source"]
        for question in suggest_questions(handbook, "en", seed=1)
    }
    assert len(sources) >= 3


def test_the_same_seed_gives_the_same_questions_and_another_one_others(handbook):
    once = suggest_questions(handbook, "en", seed=1)
    assert suggest_questions(handbook, "en", seed=1) == once
    assert any(suggest_questions(handbook, "en", seed=seed) != once for seed in range(2, 6))


def test_documents_in_the_other_language_do_where_there_are_no_others(home):
    with KnowledgeBase.open("kb", home=home, embeddings=OneDirection(), create=True) as kb:
        assert suggest_questions(kb, "zh") == []
        kb.add_texts([FAQ], [{"source": "a"}])
        assert suggest_questions(kb, "zh") == ["Can I bring my dog to the office?"]


def test_a_question_that_the_knowledge_base_would_decline_is_not_suggested(home, monkeypatch):
    with KnowledgeBase.open("kb", home=home, embeddings=OneDirection(), create=True) as kb:
        kb.add_texts([FAQ], [{"source": "a"}])
        declined = judge([])
        monkeypatch.setattr("glm_rag.suggestions.judge", lambda documents: declined)
        assert suggest_questions(kb, "en") == []


def test_a_question_that_finds_another_document_is_not_suggested(home, monkeypatch):
    other = Document("Dogs bark.", metadata={"source": "b"})
    finder = SimpleNamespace(invoke=lambda _question: [other])
    with KnowledgeBase.open("kb", home=home, embeddings=OneDirection(), create=True) as kb:
        kb.add_texts([FAQ], [{"source": "a"}])
        monkeypatch.setattr(KnowledgeBase, "as_retriever", lambda _kb: finder)
        assert suggest_questions(kb, "en") == []


def test_no_more_questions_are_tried_than_twice_the_wanted_ones(home, monkeypatch):
    tried = []

    def decline(*asked):
        tried.append(asked)
        return False

    monkeypatch.setattr("glm_rag.suggestions._is_answered", decline)
    words = ("spring", "summer", "autumn", "winter", "annual", "target", "team", "signing")
    with KnowledgeBase.open("kb", home=home, embeddings=OneDirection(), create=True) as kb:
        texts = [f"The {word} bonus is 8 percent." for word in words]
        kb.add_texts(texts, [{"source": word} for word in words])
        assert suggest_questions(kb, "en", 2) == []
    assert len(tried) == 4


def test_every_document_has_its_turn_and_another_seed_other_passages(home):
    with KnowledgeBase.open("kb", home=home, embeddings=OneDirection(), create=True) as kb:
        kb.add_texts([f"text {n}" for n in range(30)])
        assert len(kb.sample_passages(10, per_document=1)) == 10
        assert len(kb.sample_passages(99, per_document=1)) == 30
        first = [d.page_content for d in kb.sample_passages(10, per_document=1, seed=1)]
        assert first != [d.page_content for d in kb.sample_passages(10, per_document=1, seed=2)]
