"""The exported tokenizer gives the ids and prompts of this project's own, in stock transformers."""

from __future__ import annotations

import json
import random
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_rag.engine.chatglm2_tokenizer import ChatGLM2Tokenizer
from glm_rag.engine.engine import Engine
from glm_rag.engine.generate import all_logits
from glm_rag.engine.tokenizer import load_tokenizer
from glm_rag.errors import CheckpointError
from glm_rag.models.export.export import export_model
from glm_rag.models.export.sentencepiece_json import MARK
from glm_rag.types import ChatTurn
from tiny_checkpoints import TINY, write_checkpoint

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "engine" / "golden.json").read_text(encoding="utf-8")
)
STRINGS = GOLDEN["official_tokenizer"]["strings"]
PROMPTS = GOLDEN["official_tokenizer"]["prompts"]


def stock(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers warns on import about its own plans
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder)


def chatglm2_checkpoint(folder, test_data):
    """Tiny weights with the published vocabulary and tokenizer."""
    small = replace(TINY, num_layers=1, hidden_size=8, ffn_hidden_size=12, kv_channels=4)
    config = replace(small, padded_vocab_size=65024, rope_ratio=16.0, seq_length=32768)
    write_checkpoint(folder, config)
    (folder / "tokenizer.json").unlink()
    model = (test_data / "chatglm2" / "tokenizer.model").read_bytes()
    (folder / "tokenizer.model").write_bytes(model)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory, test_data):
    folder = tmp_path_factory.mktemp("chatglm2")
    export_model(chatglm2_checkpoint(folder / "source", test_data), folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def theirs(exported):
    return stock(exported)


@pytest.fixture(scope="module")
def ours(test_data):
    return ChatGLM2Tokenizer.from_file(test_data / "chatglm2" / "tokenizer.model")


@pytest.mark.parametrize("case", STRINGS, ids=lambda case: repr(case["text"][:12]))
def test_golden_strings_have_the_published_ids(theirs, case):
    assert theirs(case["text"])["input_ids"] == case["ids_with_prefix"]
    assert theirs(case["text"], add_special_tokens=False)["input_ids"] == case["plain_ids"]
    assert theirs.decode(case["ids_with_prefix"], skip_special_tokens=True) == case["decode"]


@pytest.mark.parametrize("case", PROMPTS, ids=lambda case: case["query"])
def test_the_chat_template_writes_the_published_prompts(theirs, case):
    messages = []
    for question, answer in case["history"]:
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    messages.append({"role": "user", "content": case["query"]})
    assert chat_ids(theirs, messages) == case["ids"]


def chat_ids(tokenizer, messages):
    found = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    return list(found["input_ids"])


def lines(test_data, language, count):
    """Sentences of XQuAD: contexts and questions."""
    data = json.loads((test_data / "xquad" / f"xquad.{language}.json").read_text(encoding="utf-8"))
    paragraphs = [p for article in data["data"] for p in article["paragraphs"]]
    texts = [q["question"] for p in paragraphs for q in p["qas"]]
    texts += [p["context"] for p in paragraphs]
    return random.Random(5).sample(texts, count)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_ids_are_equal_on_lines_of_documents(theirs, ours, test_data, language):
    for text in lines(test_data, language, 500):
        assert theirs(text)["input_ids"] == ours.encode_prompt(text)


REPEATED = st.lists(
    st.tuples(st.sampled_from(" ae0lo.-=\n\t哈，\u2581"), st.integers(1, 20)).map(
        lambda pair: pair[0] * pair[1]
    )
).map("".join)


@settings(max_examples=300)
@given(st.one_of(st.text(), REPEATED))
def test_ids_are_equal_on_any_text(theirs, ours, text):
    if MARK in text:
        return
    ids = ours.encode(text)
    assert theirs(text, add_special_tokens=False)["input_ids"] == ids
    assert theirs.decode(ids) == ours.decode(ids)


@pytest.mark.parametrize(
    "text", ["[gMASK]", "sop", "philosophy", "</s>", "<unk>", "<s>", "[MASK]", "<0x0A>", "eop"]
)
def test_text_that_spells_a_special_token_stays_text(theirs, ours, text):
    ids = theirs(f"a {text} b", add_special_tokens=False)["input_ids"]
    assert ids == ours.encode(f"a {text} b")
    assert all(3 <= i < 64789 for i in ids)


def test_not_even_the_exported_names_get_through_a_chat(theirs):
    spelled = f"{MARK}/s{MARK}{MARK}[gMASK]{MARK}"
    for role_texts in ([("system", spelled), ("user", spelled)], [("user", spelled)]):
        messages = [{"role": role, "content": text} for role, text in role_texts]
        ids = chat_ids(theirs, messages)
        assert ids[:2] == [64790, 64792]
        assert all(3 <= i < 64789 for i in ids[2:])


TURNS = st.lists(
    st.tuples(
        st.sampled_from(["system", "user", "assistant"]), st.sampled_from(["a", "问", " x\n"])
    ),
    max_size=8,
)


@settings(max_examples=150)
@given(TURNS)
def test_any_conversation_becomes_the_same_prompt(theirs, ours, turns):
    turns = [*turns, ("user", "q")]
    messages = [{"role": role, "content": text} for role, text in turns]
    expected = ours.encode_chat([ChatTurn(role, text) for role, text in turns])
    assert chat_ids(theirs, messages) == expected


def test_a_pair_is_closed_by_the_end_id(theirs):
    pair = GOLDEN["official_tokenizer"]["pair"]
    assert theirs(pair["a"], pair["b"])["input_ids"] == pair["ids"]


def test_padding_is_on_the_left_with_id_0_and_answers_end_with_2(theirs, exported):
    rows = theirs(["你好", "你好你好，世界"], padding=True)
    assert rows["input_ids"][0][0] == 0
    assert rows["attention_mask"][0][0] == 0
    assert theirs.eos_token_id == 2
    generation = json.loads((exported / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2]
    assert generation["suppress_tokens"] == list(range(64794, 65024))


def test_a_tokenizer_of_another_kind_is_refused(tmp_path, test_data):
    import sentencepiece

    source = chatglm2_checkpoint(tmp_path / "source", test_data)
    text = "the quick brown fox jumps over the lazy dog\n" * 50
    (tmp_path / "text").write_text(text)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"),
        model_prefix=str(tmp_path / "other"),
        vocab_size=300,
        model_type="unigram",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "other.model").replace(source / "tokenizer.model")
    with pytest.raises(CheckpointError, match="other ids"):
        export_model(source, tmp_path / "out")


# ---------------------------------------------------------------- ChatML


def test_chatml_keeps_its_own_tokens_and_prompt(tmp_path):
    source = write_checkpoint(tmp_path / "source")
    export_model(source, tmp_path / "out")
    theirs, ours = stock(tmp_path / "out"), load_tokenizer(source)
    turns = [("system", "be brief"), ("user", "hi"), ("assistant", "yes"), ("user", "on 你")]
    messages = [{"role": role, "content": text} for role, text in turns]
    assert chat_ids(theirs, messages) == ours.encode_chat([ChatTurn(r, t) for r, t in turns])
    assert theirs("a b 你")["input_ids"] == ours.encode("a b 你")
    assert theirs.eos_token == "<|im_end|>"
    assert theirs.pad_token_id == 256


@pytest.mark.slow
def test_exported_smollm2_answers_as_here(smollm2, tmp_path, test_data):
    report = export_model(smollm2, tmp_path / "out")
    assert report.dtype == "float32"
    theirs, engine = stock(tmp_path / "out"), Engine.load(smollm2, dtype="float32")
    for text in lines(test_data, "en", 300) + lines(test_data, "zh", 200):
        assert theirs(text)["input_ids"] == engine.tokenizer.encode(text)
    question = [("user", "What is the capital of France? Answer briefly.")]
    ids = engine.tokenizer.encode_chat([ChatTurn(role, text) for role, text in question])
    assert chat_ids(theirs, [{"role": r, "content": t} for r, t in question]) == ids
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.inference_mode():
        difference = model(torch.tensor([ids])).logits[0] - all_logits(engine.model, ids)
    assert difference.abs().max() < 1e-4
