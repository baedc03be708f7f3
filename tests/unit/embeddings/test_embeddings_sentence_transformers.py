"""SentenceTransformersEmbeddings over a tiny random model in a folder; nothing is downloaded."""

import sys

import numpy as np
import pytest

from glm_rag.embeddings import (
    SentenceTransformersEmbeddings,
    create_embeddings,
    embeddings_from_name,
)
from glm_rag.errors import ConfigError, MissingDependencyError, ModelNotFoundError
from glm_rag.settings import EmbeddingsSettings


class FakeModel:
    """Records what reaches the model."""

    max_seq_length = 128

    def __init__(self):
        self.seen = []

    def get_embedding_dimension(self):
        return 2

    def encode_document(self, texts, **options):
        self.seen.append(("document", texts, options))
        return np.ones((len(texts), 2), dtype=np.float32)

    def encode_query(self, texts, **options):
        self.seen.append(("query", texts, options))
        return np.ones((len(texts), 2), dtype=np.float32)


def with_fake(name):
    embedder = SentenceTransformersEmbeddings(name)
    embedder.__dict__["_model"] = FakeModel()
    return embedder


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("intfloat/multilingual-e5-large", "passage: "),
        ("models/e5-small-v2", "passage: "),
        ("BAAI/bge-m3", ""),
        ("made5/here", ""),
    ],
)
def test_e5_gets_its_prefix_and_others_do_not(name, prefix):
    embedder = with_fake(name)
    embedder.embed_documents(["x"])
    assert embedder._model.seen[0][1] == [prefix + "x"]


def test_questions_and_passages_use_the_models_own_prompts():
    embedder = with_fake("BAAI/bge-m3")
    embedder.embed_query("q\0")
    embedder.embed_documents(["d"])
    assert [kind for kind, _, _ in embedder._model.seen] == ["query", "document"]
    assert embedder._model.seen[0][1] == ["q"]
    assert embedder._model.seen[0][2]["normalize_embeddings"] is True


def test_texts_are_normalised_before_they_reach_the_model():
    embedder = with_fake("BAAI/bge-m3")
    embedder.embed_documents(["ﬁ\0ＡＢＣ\ud800\x07é"])
    embedder.embed_query("①\0x")
    assert [texts for _, texts, _ in embedder._model.seen] == [["fi ABC é"], ["1 x"]]


def test_tokens_are_counted_with_a_tokenizer_that_embedding_does_not_use():
    class Tokenizer:
        def __call__(self, text, **_):
            return {"input_ids": text.split(), "by": id(self)}

    embedder = with_fake("BAAI/bge-m3")
    embedder._model.tokenizer = Tokenizer()
    assert embedder.count_tokens("a b  c") == 3
    assert embedder._counter is not embedder._model.tokenizer
    assert embedder._counter is embedder._counter


def test_no_texts_load_no_model(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    assert SentenceTransformersEmbeddings("any").embed_documents([]) == []


def test_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match=r"glm-rag\[sentence-transformers\]"):
        SentenceTransformersEmbeddings("any").embed_query("x")


def test_a_model_must_be_named():
    with pytest.raises(ConfigError, match=r"embeddings\.model"):
        create_embeddings(EmbeddingsSettings(backend="sentence-transformers"))


def test_the_remembered_name_gives_the_same_embedder():
    settings = EmbeddingsSettings(backend="sentence-transformers", model="BAAI/bge-m3")
    name = create_embeddings(settings).name
    assert embeddings_from_name(name).name == name


def test_a_name_only_its_owner_knows_is_refused():
    with pytest.raises(ConfigError, match="pass it as"):
        embeddings_from_name("MyEmbeddings")


@pytest.mark.slow
@pytest.mark.filterwarnings("default", "error:A test tried")
def test_a_model_from_a_folder_embeds_without_network(tmp_path, no_network):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizerFast(str(tmp_path / "vocab.txt"))
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    body = modules.Transformer(str(tmp_path / "bert"), max_seq_length=16)
    pooling = modules.Pooling(16)
    sentence_transformers.SentenceTransformer(modules=[body, pooling]).save(str(tmp_path / "tiny"))

    embedder = SentenceTransformersEmbeddings(str(tmp_path / "tiny"), local_files_only=True)
    vectors = np.array(embedder.embed_documents(["a b", "c d e"]))
    assert vectors.shape == (2, embedder.dimension) == (2, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert embedder.max_tokens == 16
    assert embedder.count_tokens("a b c") == 5
    assert len(embedder.embed_query("a")) == 16


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_model_that_is_nowhere_gives_one_clear_line(tmp_path, no_network):
    pytest.importorskip("sentence_transformers")
    embedder = SentenceTransformersEmbeddings("no/such-model", local_files_only=True)
    with pytest.raises(ModelNotFoundError, match="name a folder") as caught:
        embedder.embed_query("x")
    assert "\n" not in str(caught.value)
