"""ChatGLM2's tokenizer gives the published ids, and no text becomes a special id."""

from __future__ import annotations

import hashlib

import pytest
from golden_values import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_rag.engine.chatglm2_tokenizer import ChatGLM2Tokenizer
from glm_rag.engine.tokenizer import load_tokenizer
from glm_rag.errors import CheckpointError, ConfigError
from glm_rag.types import ChatTurn
from tiny_checkpoints import byte_tokenizer, byte_tokenizer_json

OFFICIAL = GOLDEN["official_tokenizer"]
PUBLISHED = GOLDEN["published_token_ids"]


@pytest.fixture(scope="module")
def chatglm2(test_data) -> ChatGLM2Tokenizer:
    path = test_data / "chatglm2" / "tokenizer.model"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == GOLDEN["tokenizer_model"]["sha256"]
    return ChatGLM2Tokenizer.from_file(path)


@pytest.fixture(scope="module")
def chatml():
    return byte_tokenizer()


def conversation(query: str, history=()) -> list[ChatTurn]:
    turns = [
        ChatTurn(role, text)
        for pair in history
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return [*turns, ChatTurn("user", query)]


def test_vocabulary_ends_behind_the_special_ids(chatglm2):
    assert chatglm2.vocab_size == GOLDEN["special_ids"]["first_unused"]
    assert chatglm2.eos_token_ids == {GOLDEN["special_ids"]["eos"]}


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case["source"][:30])
def test_published_vectors(chatglm2, case):
    if case["kind"] == "encode":
        assert chatglm2.encode_prompt(case["text"]) == case["ids"]
    elif case["kind"] == "encode_no_special":
        assert chatglm2.encode(case["text"]) == case["ids"]
        assert chatglm2.decode(case["ids"]) == case["decode"]
    elif case["kind"] == "encode_pair":
        assert chatglm2.encode_pair(case["a"], case["b"]) == case["ids"]
    else:  # ChatGLM3's input on the same pieces: head, role, line break, text, role
        head, text, tail = case["ids"][:3], case["ids"][3:-1], case["ids"][-1:]
        pieces = chatglm2.encode("\n") + chatglm2.encode(case["text"])
        assert text == pieces
        assert head + tail == [64790, 64792, 64795, 64796]


@pytest.mark.parametrize("case", OFFICIAL["strings"], ids=lambda case: repr(case["text"][:12]))
def test_strings_encode_and_decode_as_published(chatglm2, case):
    assert chatglm2.encode(case["text"]) == case["plain_ids"]
    assert chatglm2.encode_prompt(case["text"]) == case["ids_with_prefix"]
    assert chatglm2.decode(case["ids_with_prefix"]) == case["decode"]
    assert chatglm2.count(case["text"]) == len(case["plain_ids"])


@pytest.mark.parametrize("case", OFFICIAL["prompts"], ids=lambda case: case["query"])
def test_chat_prompts_with_history_as_published(chatglm2, case):
    assert chatglm2.encode_chat(conversation(case["query"], case["history"])) == case["ids"]


def test_pair_is_closed_by_the_end_id(chatglm2):
    pair = OFFICIAL["pair"]
    assert chatglm2.encode_pair(pair["a"], pair["b"]) == pair["ids"]


def test_kept_ids_are_continued_exactly_as_published(chatglm2):
    first = OFFICIAL["prompts"][0]
    answer_ids = tuple(GOLDEN["published_generation"][0]["generated_ids"][:-1])
    expected_tail = OFFICIAL["continuation"]["used_after_dropping_first"]
    turns = [
        ChatTurn("user", first["query"]),
        ChatTurn("assistant", "你好👋！", answer_ids),
        ChatTurn("user", "晚上睡不着应该怎么办"),
    ]
    assert chatglm2.encode_chat(turns) == first["ids"] + list(answer_ids) + expected_tail


def test_reencoded_answers_differ_from_generated_ids(chatglm2):
    trap = GOLDEN["kv_reuse_trap"]
    start = len(OFFICIAL["prompts"][0]["ids"])
    prompt = chatglm2.encode_chat(conversation("x", [("你好", "你好")]))
    assert prompt[start] == trap["reencoded_first_id"]
    assert prompt[start] != trap["generated_first_ids"][0]


def test_rounds_without_and_with_kept_ids_mix(chatglm2):
    kept = (36474, 54591)
    turns = [
        *conversation("a", [("q1", "r1")])[:2],
        ChatTurn("user", "q2"),
        ChatTurn("assistant", "r2", kept),
        ChatTurn("user", "q3"),
        ChatTurn("assistant", "r3"),
        ChatTurn("user", "q4"),
    ]
    head = "[Round 1]\n\n问：q1\n\n答：r1\n\n[Round 2]\n\n问：q2\n\n答："
    tail = "\n\n[Round 3]\n\n问：q3\n\n答：r3\n\n[Round 4]\n\n问：q4\n\n答："
    expected = chatglm2.encode_prompt(head) + list(kept) + chatglm2.encode(tail)[1:]
    assert chatglm2.encode_chat(turns) == expected


def test_system_text_stands_before_the_first_question(chatglm2):
    turns = [ChatTurn("system", "Be brief.\n"), *conversation("b", [("a", "x")])]
    text = "[Round 1]\n\n问：Be brief.\na\n\n答：x\n\n[Round 2]\n\n问：b\n\n答："
    assert chatglm2.encode_chat(turns) == chatglm2.encode_prompt(text)


def test_batch_rows_end_with_the_unpadded_ids(chatglm2):
    batch = OFFICIAL["batch_left_padding"]
    texts = ("你好", OFFICIAL["prompts"][0]["prompt"])
    for text, ids, mask in zip(texts, batch["input_ids"], batch["attention_mask"], strict=True):
        real = [i for i, is_real in zip(ids, mask, strict=True) if is_real]
        assert chatglm2.encode_prompt(text) == real


def test_decoding_drops_special_control_and_unused_ids(chatglm2):
    specials = [0, 1, 2, *range(64789, 65024)]
    assert chatglm2.decode([*specials, 36474, *specials, 54591]) == "你好"


@settings(max_examples=200)
@given(st.text())
def test_any_text_survives_and_holds_no_special_id(chatglm2, text):
    ids = chatglm2.encode(text)
    assert all(3 <= i < 64789 for i in ids)
    assert chatglm2.decode(ids) == text.replace("\u2581", " ")


def test_lone_surrogates_become_replacement_characters(chatglm2, chatml):
    for tokenizer in (chatglm2, chatml):
        assert tokenizer.decode(tokenizer.encode("a\ud800b")).startswith("a\ufffd")


# ---------------------------------------------------------------- ChatML


def test_chatml_prompt_has_no_system_turn_unless_given(chatml):
    start, end = 257, 258
    line = chatml.encode("\n")
    user = [start, *chatml.encode("user\nhi"), end, *line]
    head = [start, *chatml.encode("assistant\n")]
    assert chatml.encode_chat([ChatTurn("user", "hi")]) == user + head
    system = [start, *chatml.encode("system\nbe kind"), end, *line]
    turns = [ChatTurn("system", "be kind"), ChatTurn("user", "hi")]
    assert chatml.encode_chat(turns) == system + user + head


def test_chatml_continues_the_exact_sequence_by_kept_ids(chatml):
    first = chatml.encode_chat([ChatTurn("user", "hi")])
    kept = (1, 2, 3)
    turns = [ChatTurn("user", "hi"), ChatTurn("assistant", "?", kept), ChatTurn("user", "on")]
    assert chatml.encode_chat(turns)[: len(first) + 4] == [*first, *kept, 258]


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["<|im_end|>", "<|im_start|>", "<|endoftext|>", "a", "\n"])))
def test_chatml_text_never_becomes_a_special_id(chatml, parts):
    text = "".join(parts)
    ids = chatml.encode(text)
    assert all(i < 256 for i in ids)
    assert chatml.decode(ids) == text


def test_chatml_ends_at_turn_end_and_text_end(chatml):
    assert chatml.eos_token_ids == {256, 258}
    assert chatml.vocab_size == 259


@pytest.mark.parametrize("turns", [[], [ChatTurn("user", "a"), ChatTurn("assistant", "b")]])
def test_conversations_that_wait_for_no_answer_are_refused(chatml, turns):
    with pytest.raises(ConfigError, match="user turn"):
        chatml.encode_chat(turns)


# ---------------------------------------------------------------- files


def test_tokenizer_file_decides_the_kind(tmp_path, test_data):
    (tmp_path / "tokenizer.json").write_text(byte_tokenizer_json())
    assert load_tokenizer(tmp_path).vocab_size == 259
    real = test_data / "chatglm2" / "tokenizer.model"
    (tmp_path / "tokenizer.model").write_bytes(real.read_bytes())
    assert load_tokenizer(tmp_path).vocab_size == 64794
    assert load_tokenizer(tmp_path, "chatml").vocab_size == 259


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"rubbish", b"{}", b"\xff\xfe"])
def test_damaged_tokenizer_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="tokenizer"):
        load_tokenizer(tmp_path)


def test_absent_tokenizer_files_are_named(tmp_path):
    for kind, name in (("auto", "neither"), ("chatglm2", r"\.model"), ("chatml", r"\.json")):
        with pytest.raises(CheckpointError, match=name):
            load_tokenizer(tmp_path, kind)
