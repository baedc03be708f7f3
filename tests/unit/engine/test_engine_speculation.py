"""Speculation: the same ids for fewer passes, whatever the guesses are."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from guessing import GREEDY, PROMPT, copying_engine, guess_anything, ids_of
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_rag.engine.engine import Engine
from glm_rag.engine.prompt_lookup import PromptLookup
from glm_rag.engine.sampling import TokenSampler
from glm_rag.types import SamplingParams
from tiny_checkpoints import TINY, tiny_engine


@pytest.fixture(scope="module")
def engine():
    return tiny_engine()


@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("temperature", [0, 0.7, 2.0])
@pytest.mark.parametrize("which", ["random", "looping"])
def test_speculation_changes_no_id(engine, looping, which, temperature, penalty):
    chosen = {"random": engine, "looping": looping}[which]
    for seed in range(5):
        plain = replace(
            GREEDY, temperature=temperature, repetition_penalty=penalty, seed=seed, speculate=False
        )
        prompt = PROMPT[seed:]
        expected = ids_of(chosen.generate(prompt, plain))
        assert ids_of(chosen.generate(prompt, replace(plain, speculate=True))) == expected


@settings(max_examples=40)
@given(
    prompt=st.lists(st.integers(0, 5), min_size=1, max_size=20),
    temperature=st.sampled_from([0, 1.0]),
    penalty=st.sampled_from([1.0, 1.5]),
    max_tokens=st.integers(1, 30),
    seed=st.integers(0, 99),
)
def test_speculation_changes_no_id_of_any_prompt(prompt, temperature, penalty, max_tokens, seed):
    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        repetition_penalty=penalty,
        seed=seed,
        speculate=False,
    )
    plain = list(_COPYING.generate(prompt, params))
    drafted = list(_COPYING.generate(prompt, replace(params, speculate=True)))
    assert ids_of(drafted) == ids_of(plain)
    assert drafted[-1].finish_reason == plain[-1].finish_reason
    assert drafted[-1].usage.output_tokens == plain[-1].usage.output_tokens


_COPYING = copying_engine()


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_wrong_guesses_change_nothing(looping, monkeypatch, temperature):
    params = replace(GREEDY, temperature=temperature, seed=1, repetition_penalty=1.1)
    expected = ids_of(looping.generate(PROMPT, replace(params, speculate=False)))
    for seed in range(20):
        with monkeypatch.context() as patch:
            guess_anything(patch, seed)
            assert ids_of(looping.generate(PROMPT, params)) == expected


def test_a_prefix_and_a_short_chunk_change_nothing(looping):
    looping_chunked = Engine(TINY, looping.model, looping.tokenizer, prefill_chunk=5)
    expected = ids_of(looping.generate(PROMPT, replace(GREEDY, speculate=False)))
    assert ids_of(looping_chunked.generate(PROMPT, GREEDY)) == expected


def test_a_draw_accepts_a_guess_with_its_probability_and_else_draws_from_the_rest():
    """The two halves of the rejection rule, on the distribution after penalty and warping."""
    logits = torch.tensor([1.0, 0.2, -0.5, 0.9, -3.0, 0.0, 0.4, -1.0])
    params = SamplingParams(temperature=0.9, top_k=6, top_p=0.95, repetition_penalty=1.2, seed=11)
    p = exact_distribution(logits, params, seen=[0, 6])
    guess, draws = 3, 20_000
    counts = Counter()
    sampler = TokenSampler([0, 6], params, vocab_size=8)
    seen = sampler._seen
    for _ in range(draws):
        sampler._seen = seen
        counts[sampler.next(logits)] += 1
    assert abs(counts[guess] / draws - p[guess]) < 4 * (p[guess] * (1 - p[guess]) / draws) ** 0.5
    rejected = draws - counts[guess]
    rest = p.clone()
    rest[guess] = 0
    rest /= rest.sum()
    expected = rest * rejected
    observed = torch.tensor([0.0 if i == guess else float(counts[i]) for i in range(8)])
    possible = rest > 0
    assert observed[~possible].sum() == 0
    chi_square = ((observed - expected)[possible] ** 2 / expected[possible]).sum()
    degrees = int(possible.sum()) - 1
    assert chi_square < degrees + 4 * (2 * degrees) ** 0.5


def exact_distribution(logits, params, seen):
    scores = logits.double().clone()
    for i in seen:
        factor = params.repetition_penalty
        scores[i] = scores[i] * factor if scores[i] < 0 else scores[i] / factor
    scores /= params.temperature
    scores[scores.argsort(descending=True)[params.top_k :]] = float("-inf")
    order = scores.argsort(descending=True)
    mass = scores.softmax(0)[order].cumsum(0)
    scores[order[1:][mass[:-1] >= params.top_p]] = float("-inf")
    return scores.softmax(0).float()


def test_sampled_pairs_keep_their_joint_distribution(looping, monkeypatch):
    """Two ids in a row, drafts always on: the second must be drawn as if nothing was guessed."""
    prompt, draws = PROMPT[:6], 1500
    params = SamplingParams(max_tokens=2, temperature=1.0, top_k=3, top_p=1, seed=None)
    first = looping.logits(prompt)[-1, : looping.tokenizer.vocab_size]
    guess = int(first.argmax())
    monkeypatch.setattr(PromptLookup, "draft", lambda self, most, others=0: [guess][:most])
    expected = pair_distribution(looping, prompt, first)
    counts = Counter()
    for seed in range(draws):
        ids = ids_of(looping.generate(prompt, replace(params, seed=seed)))
        counts[tuple(ids)] += 1
    assert set(counts) <= set(expected)
    chi_square = sum((counts[k] - draws * p) ** 2 / (draws * p) for k, p in expected.items())
    degrees = len(expected) - 1
    assert chi_square < degrees + 4 * (2 * degrees) ** 0.5


def pair_distribution(engine, prompt, first):
    pairs = {}
    for a, pa in top_three(first).items():
        second = engine.logits([*prompt, a])[-1, : engine.tokenizer.vocab_size]
        pairs |= {(a, b): pa * pb for b, pb in top_three(second).items()}
    return pairs


def top_three(logits):
    values, ids = logits.topk(3)
    return dict(zip(ids.tolist(), values.softmax(0).tolist(), strict=True))
