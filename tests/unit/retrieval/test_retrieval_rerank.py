"""Rerankers: chosen by one setting, loaded when first used, asked about the first passages only."""

import sys
from functools import partial
from types import SimpleNamespace

import pytest
from langchain_core.documents import Document

from fakes import ScriptedEngine, tiny_engine
from glm_rag.assistant import Assistant
from glm_rag.build import build_reranker
from glm_rag.chat_models import ChatGLM2
from glm_rag.config import load_config
from glm_rag.errors import ConfigError, MissingDependencyError, ModelNotFoundError
from glm_rag.passage_prompt import passage_prompt
from glm_rag.retrieval.rerank.cross_encoder import CrossEncoderReranker
from glm_rag.retrieval.rerank.likelihood import LikelihoodReranker
from glm_rag.settings import PackingSettings
from glm_rag.types import CacheLimits

LEAVE = Document(id="a", page_content="Parental leave lasts 26 weeks.", metadata={"title": "H"})
SUSHI = Document(id="b", page_content="Sushi is free on Fridays.", metadata={"title": "H"})
QUESTIONS = ["How long is parental leave?", "育儿假有多长？", "谁。", "How?", "?", "Hm"]


@pytest.fixture
def installed(monkeypatch):
    """A stand-in for sentence-transformers; `made` lists the cross-encoders and what they read."""
    made = []

    class CrossEncoder:
        def __init__(self, name, **options):
            if name == "absent":
                raise OSError("not in the\ncache")
            self.name, self.options, self.pairs = name, options, []
            made.append(self)

        def predict(self, pairs, **options):
            self.pairs += pairs
            return [len(text) for _, text in pairs]

    module = SimpleNamespace(CrossEncoder=CrossEncoder)
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    return made


def settings(**retrieval):
    return load_config(overrides={f"retrieval.{name}": value for name, value in retrieval.items()})


def test_one_setting_chooses_the_reranker_and_nothing_is_loaded(installed):
    assert build_reranker(settings()) is None
    assert isinstance(build_reranker(settings(rerank="likelihood")), LikelihoodReranker)
    made = build_reranker(settings(rerank="cross-encoder", rerank_model="some/model"))
    assert isinstance(made, CrossEncoderReranker)
    assert installed == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rerank": "cross-encoder"}, "name the cross-encoder in `retrieval.rerank_model`"),
        ({"rerank_model": "x"}, "set `retrieval.rerank: cross-encoder`"),
        ({"rerank": "likelihood", "rerank_model": "x"}, "set `retrieval.rerank: cross-encoder`"),
    ],
)
def test_a_model_and_the_cross_encoder_belong_together(given, said):
    with pytest.raises(ConfigError, match=said):
        build_reranker(settings(**given))


def test_a_cross_encoder_reads_question_and_passage_and_is_never_downloaded(installed, tmp_path):
    reranker = CrossEncoderReranker(str(tmp_path))
    table = Document(page_content="| 1 |", metadata={"table_header": "| weeks |"})
    assert reranker.scores("q", []) == []
    assert installed == []
    assert reranker.scores("q", [LEAVE, table]) == [len(LEAVE.page_content), 15.0]
    (made,) = installed
    assert (made.name, made.options) == (str(tmp_path), {"local_files_only": True})
    assert made.pairs == [("q", LEAVE.page_content), ("q", "| weeks |\n| 1 |")]
    reranker.scores("q", [LEAVE])
    assert len(installed) == 1


def test_an_absent_model_or_package_says_what_to_do(installed, monkeypatch):
    with pytest.raises(ModelNotFoundError, match="run hf download absent first") as raised:
        CrossEncoderReranker("absent").scores("q", [LEAVE])
    assert "\n" not in str(raised.value)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match=r"glm-rag\[sentence-transformers\]"):
        CrossEncoderReranker("x").scores("q", [LEAVE])


class Recorder:
    """Remembers what is scored."""

    def __init__(self):
        self.asked = []

    def score(self, prompt_ids, continuation_ids):
        self.asked.append((list(prompt_ids), list(continuation_ids)))
        return -float(len(self.asked))


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("document", [LEAVE, SUSHI])
def test_the_question_is_what_is_scored_behind_the_prompt_it_will_have(question, document):
    llm = ChatGLM2(engine=ScriptedEngine([""]))
    recorder = Recorder()
    reranker = LikelihoodReranker(lambda: recorder, partial(passage_prompt, llm))
    assert reranker.scores(question, [document]) == [-1.0]
    ((prompt, said),) = recorder.asked
    decode = llm.open().tokenizer.decode
    assert decode(said) == question
    assert document.page_content in decode(prompt)
    language = "zh" if question[0] in "育谁" else "en"
    whole = passage_prompt(llm, question, document, language)
    assert whole[: len(prompt) + len(said)] == [*prompt, *said]


def test_the_assistants_prompt_begins_with_what_the_reranker_computed():
    engine = ScriptedEngine(["26 weeks."])
    llm = ChatGLM2(engine=engine, max_tokens=100)
    recorder = Recorder()
    LikelihoodReranker(lambda: recorder, partial(passage_prompt, llm)).scores(QUESTIONS[0], [LEAVE])
    retriever = SimpleNamespace(invoke=lambda question: [LEAVE])
    Assistant(retriever, llm, packing=PackingSettings(answer_reserve=50)).ask(QUESTIONS[0])
    ((prompt, said),) = recorder.asked
    assert engine.prompts[0][: len(prompt) + len(said)] == [*prompt, *said]


def test_a_real_engine_scores_and_keeps_the_passage_for_the_answer():
    engine = tiny_engine(seq_length=1024)
    engine.keep_sequences(CacheLimits(memory_bytes=10**8))
    llm = ChatGLM2(engine=engine)
    reranker = LikelihoodReranker(llm.open, partial(passage_prompt, llm))
    scores = reranker.scores(QUESTIONS[0], [LEAVE, SUSHI])
    assert all(score < 0 for score in scores)
    assert scores[0] != scores[1]
    for document in (LEAVE, SUSHI):
        ids = passage_prompt(llm, "What else?", document, "en")
        kept = engine.store.start(ids, engine.new_cache, room=len(ids))
        assert document.page_content in engine.tokenizer.decode(kept.token_ids)


@pytest.mark.slow
@pytest.mark.filterwarnings("default", "error:A test tried")
def test_a_real_cross_encoder_is_read_from_its_folder(tmp_path, no_network):
    pytest.importorskip("sentence_transformers")
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcde"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        num_labels=1,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    reranker = CrossEncoderReranker(str(tmp_path / "tiny"))
    documents = [Document(page_content=text) for text in ("a b", "c d e", "a b")]
    one, other, again = reranker.scores("a", documents)
    assert one == pytest.approx(again)
    assert one != pytest.approx(other, abs=1e-9)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_cross_encoder_that_is_nowhere_gives_one_clear_line(no_network):
    pytest.importorskip("sentence_transformers")
    with pytest.raises(ModelNotFoundError, match="run hf download nobody/nothing first") as raised:
        CrossEncoderReranker("nobody/nothing").scores("a", [LEAVE])
    assert "\n" not in str(raised.value)
