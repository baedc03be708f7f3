"""The loop guard ends what repeats itself, and nothing that people really write."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_rag.engine.loop_guard import LoopGuard, TextLoopGuard, without_loop
from glm_rag.types import SamplingParams
from tiny_checkpoints import byte_tokenizer, tiny_engine

LOOPS = {
    "a short sentence": "The leave is long. ",
    "a sentence": "Every employee may take 26 weeks of parental leave after the birth of a child. ",
    "a line of a list": "- Ask the personnel department for the form.\n",
    "a Chinese sentence": "员工可以在孩子出生后享受二十六周的育儿假。",
    "a paragraph": (
        "Parental leave lasts 26 weeks. It may be taken in two parts. The second part begins "
        "within 18 months of the birth, and the employer has to agree to it in writing before "
        "the first part ends; a refusal has to give its reasons within 14 days.\n\n"
    ),
    "a table row": "| 26 weeks | parental | leave | yes |\n",
}
HONEST = {
    "rule of dashes": "a | b\n" + "-" * 100 + "\nParental leave lasts 26 weeks.",
    "table rule": "| a | b | c |\n" + "|---" * 12 + "|\n| 1 | 2 | 3 |\n",
    "leaders": "Chapter 1 " + "." * 90 + " 12\nChapter 2 " + ". " * 40 + " 17\n",
    "numbered list": "".join(f"{i}. Fill in form {i} and hand it in.\n" for i in range(1, 30)),
    "list of one pattern": "".join(
        f"- Take the {w} leave.\n" for w in "first second third fourth fifth sixth".split()
    ),
    "table with equal cells": "".join(f"| 2{i:03} | yes | no | yes |\n" for i in range(40)),
    "code": "".join(f"    if x == {i}:\n        return table[{i}]\n" for i in range(20)),
    "zeros": "x = [" + "0, " * 30 + "0]\n",
    "verse": (
        "明月几时有，把酒问青天。不知天上宫阙，今夕是何年。\n"
        "知否，知否，应是绿肥红瘦。\n少年不识愁滋味，爱上层楼。爱上层楼，为赋新词强说愁。\n"
        "而今识尽愁滋味，欲说还休。欲说还休，却道天凉好个秋。\n"
    ),
    "refrain": "Row, row, row your boat, gently down the stream, merrily, merrily, merrily, "
    "merrily, life is but a dream.\n" * 2,
    "laughter": "哈哈哈哈哈哈哈哈哈哈，你真好，真好，真好！",
    "emphasis": "very, very, very, very long " * 2,
    "three equal lines": "print('done')\n" * 3,
}


def words(text: str) -> list[str]:
    """About the tokens of a trained model: a word or four characters at most."""
    return re.findall(r"\s?[a-zA-Z]{1,8}|\s+|.", text)


def first_loop(items) -> int | None:
    """How many items it takes."""
    guard = LoopGuard()
    return next((n for n, item in enumerate(items, 1) if guard.push(item)), None)


@pytest.mark.parametrize("split", [words, list], ids=["words", "characters"])
@pytest.mark.parametrize("unit", LOOPS.values(), ids=LOOPS.keys())
def test_a_loop_is_ended_within_a_few_repeats(unit, split):
    if split is list and len(unit) > 200:
        pytest.skip("longer than any unit")
    before = split("The answer is this. ")
    repeats = (first_loop([*before, *split(unit * 20)]) - len(before)) / len(split(unit))
    assert 2 < repeats <= 6


@pytest.mark.parametrize("split", [words, list], ids=["words", "characters"])
@pytest.mark.parametrize("text", HONEST.values(), ids=HONEST.keys())
def test_what_people_write_is_no_loop(text, split):
    if split is list and text in {HONEST["refrain"], HONEST["zeros"]}:
        pytest.skip("a model's tokens are longer than characters")
    assert first_loop(split(text)) is None


@pytest.mark.parametrize("text", HONEST.values(), ids=HONEST.keys())
def test_text_that_people_write_is_no_loop(text):
    assert not TextLoopGuard().push(text)
    guard = TextLoopGuard()
    assert sum(guard.push(character) for character in text) == 0


def test_a_rule_that_never_ends_is_a_loop():
    assert first_loop("-" * 200) == 128
    assert first_loop([1, 2] * 100) == 128


@given(st.lists(st.integers(0, 9), min_size=4, max_size=40), st.integers(0, 50))
def test_only_what_stands_at_the_end_counts(unit, others):
    """A loop is found wherever it begins, and never before two whole units."""
    before = list(range(100, 100 + others))
    found = first_loop(before + unit * 50)
    assert found is None or found >= len(before) + 32
    if len(set(unit)) > 3:
        assert found is not None


@given(st.text("ab 。年假", max_size=60), st.lists(st.integers(1, 7), max_size=20))
def test_chunks_of_a_text_change_nothing(text, sizes):
    text = text * 12
    whole = TextLoopGuard()
    expected = whole.push(text)
    guard, found, at = TextLoopGuard(), False, 0
    for size in [*sizes * 100, len(text)]:
        found |= guard.push(text[at : at + size])
        at += size
    assert found == expected


# ---------------------------------------------------------------- what remains of the text


@pytest.mark.parametrize("unit", LOOPS.values(), ids=LOOPS.keys())
@pytest.mark.parametrize("cut", [0, 1, 3, 9])
def test_a_loop_is_left_out_but_for_its_first_round(unit, cut):
    text = "It is so. " + unit * 5
    text = text[: len(text) - cut]
    assert without_loop(text) == ("It is so. " + unit).rstrip()


@pytest.mark.parametrize("text", ["", "One.", "It is so. And so on.", "是的，就是这样。"])
def test_a_text_without_repeats_stays(text):
    assert without_loop(text) == text


# ---------------------------------------------------------------- in the engine


def looping_engine(monkeypatch):
    """A random model whose sampler says the same sentence over and over."""
    from glm_rag.engine.sampling import TokenSampler

    engine = tiny_engine()
    said = engine.tokenizer.encode("It lasts 26 weeks. ") * 50
    monkeypatch.setattr(TokenSampler, "next", lambda self, logits: said.pop(0))
    return engine


PARAMS = SamplingParams(max_tokens=400, temperature=0)


def test_the_engine_ends_a_loop_and_says_why(monkeypatch):
    deltas = list(looping_engine(monkeypatch).generate([1, 2, 3], PARAMS))
    text = "".join(delta.text for delta in deltas)
    assert deltas[-1].finish_reason == "repetition"
    assert text == "It lasts 26 weeks. " * 4
    assert deltas[-1].usage.output_tokens == len(text)


def test_the_loop_guard_can_be_turned_off(monkeypatch):
    params = replace(PARAMS, loop_guard=False)
    deltas = list(looping_engine(monkeypatch).generate([1, 2, 3], params))
    assert deltas[-1].finish_reason == "length"
    assert deltas[-1].usage.output_tokens == 400


def test_a_stop_string_comes_before_the_loop_guard(monkeypatch):
    params = replace(PARAMS, stop=("weeks.",))
    deltas = list(looping_engine(monkeypatch).generate([1, 2, 3], params))
    assert deltas[-1].finish_reason == "stop"
    assert "".join(delta.text for delta in deltas) == "It lasts 26 "


def test_the_byte_tokenizer_sees_the_same_loop():
    ids = byte_tokenizer().encode(LOOPS["a Chinese sentence"] * 6)
    assert first_loop(ids) is not None
