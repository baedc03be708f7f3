"""Answers that end in the middle of a draft, and the caches they leave."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from guessing import GREEDY, PROMPT, guess_anything, ids_of

from glm_rag.engine import generate
from glm_rag.engine.prompt_lookup import PromptLookup
from tiny_checkpoints import tiny_engine


@pytest.fixture(scope="module")
def engine():
    return tiny_engine()


def true_guesses(monkeypatch, ids: list[int], length: int = 8) -> None:
    """Drafts that are all right: the ids of the plain answer."""
    done = {"ids": 0}

    def push(self, token_id):
        done["ids"] += 1

    def draft(self, most, others=0):
        return ids[done["ids"] : done["ids"] + min(length, most)]

    monkeypatch.setattr(PromptLookup, "push", push)
    monkeypatch.setattr(PromptLookup, "draft", draft)


@pytest.fixture
def plain_ids(looping):
    return ids_of(looping.generate(PROMPT, replace(GREEDY, speculate=False)))


@pytest.mark.parametrize("max_tokens", range(1, 20))
def test_max_tokens_hold_inside_a_draft(looping, monkeypatch, plain_ids, max_tokens):
    true_guesses(monkeypatch, plain_ids)
    cache = looping.new_cache()
    params = replace(GREEDY, max_tokens=max_tokens)
    deltas = list(looping.generate(PROMPT, params, cache=cache))
    assert ids_of(deltas) == plain_ids[:max_tokens]
    assert deltas[-1].finish_reason == "length"
    assert cache.token_ids == [*PROMPT, *plain_ids[: max_tokens - 1]]


def test_an_end_id_inside_a_draft_ends_the_answer(engine, monkeypatch):
    free = ids_of(engine.generate(PROMPT, replace(GREEDY, speculate=False)))
    for position in range(3, 14):
        end = free[position]
        with monkeypatch.context() as patch:
            true_guesses(patch, free)
            patch.setattr(engine.tokenizer, "eos_token_ids", frozenset({end}))
            cache = engine.new_cache()
            deltas = list(engine.generate(PROMPT, GREEDY, cache=cache))
        kept = free[: free.index(end)]
        assert ids_of(deltas) == kept
        assert deltas[-1].finish_reason == "stop"
        assert deltas[-1].usage.output_tokens == len(kept)
        assert cache.token_ids == [*PROMPT, *kept]


def test_a_stop_string_inside_a_draft_ends_the_answer(engine, monkeypatch):
    plain = replace(GREEDY, speculate=False)
    free = ids_of(engine.generate(PROMPT, plain))
    text = engine.tokenizer.decode(free)
    true_guesses(monkeypatch, free)
    params = replace(GREEDY, stop=(text[7:9],))
    expected = list(engine.generate(PROMPT, replace(params, speculate=False)))
    deltas = list(engine.generate(PROMPT, params))
    assert "".join(d.text for d in deltas) == "".join(d.text for d in expected)
    assert deltas[-1].finish_reason == "stop"
    assert deltas[-1].usage.output_tokens == expected[-1].usage.output_tokens


@pytest.mark.parametrize("steps", range(1, 14))
def test_an_answer_broken_off_inside_a_draft_leaves_a_true_cache(
    looping, monkeypatch, plain_ids, steps
):
    cache = looping.new_cache()
    with monkeypatch.context() as patch:
        true_guesses(patch, plain_ids)
        stream = looping.generate(PROMPT, GREEDY, cache=cache)
        for _ in range(steps):
            next(stream)
        stream.close()
    assert cache.token_ids == [*PROMPT, *plain_ids[: steps - 1]]
    assert ids_of(looping.generate(PROMPT, GREEDY, cache=cache)) == plain_ids


def test_the_window_is_never_passed_by_a_draft(monkeypatch):
    engine = tiny_engine(seq_length=80)
    guess_anything(monkeypatch, 0)
    cache = engine.new_cache()
    deltas = list(engine.generate(PROMPT, replace(GREEDY, max_tokens=500), cache=cache))
    assert deltas[-1].usage.output_tokens == 80 - len(PROMPT)
    assert cache.num_tokens == 79


def test_ids_that_are_never_sampled_are_never_accepted(engine, monkeypatch):
    unused = engine.config.padded_vocab_size - 1
    monkeypatch.setattr(PromptLookup, "draft", lambda self, most, others=0: [unused] * min(3, most))
    with torch.no_grad():
        expected = ids_of(engine.generate(PROMPT, replace(GREEDY, speculate=False)))
    assert ids_of(engine.generate(PROMPT, GREEDY)) == expected


def test_a_verifying_pass_gives_the_logits_of_single_passes(looping):
    cache = looping.new_cache()
    generate.prefill(looping.model, PROMPT[:20], cache)
    together = generate.decode(looping.model, PROMPT[20:28], cache)
    torch.testing.assert_close(together, looping.logits(PROMPT[:28])[20:], rtol=1e-4, atol=1e-4)
