"""Sampling does what the published model's library does, in its order."""

from __future__ import annotations

import warnings

import pytest
import torch
from golden_values import RESULTS
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_rag.engine import sampling
from glm_rag.errors import ConfigError, GenerationError
from glm_rag.types import SamplingParams

NO_IDS = torch.empty(0, dtype=torch.long)
PARAMS = st.builds(
    SamplingParams,
    temperature=st.floats(0.1, 3),
    top_k=st.integers(0, 60),
    top_p=st.floats(0.01, 1),
)


@pytest.fixture(scope="module")
def reference():
    """Modules of transformers' logits processors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.generation import logits_process
    return logits_process


def random_logits(seed: int, size: int = 50) -> torch.Tensor:
    return 4 * torch.randn(size, generator=torch.Generator().manual_seed(seed))


def reference_warp(reference, logits, params):
    warpers = [reference.TemperatureLogitsWarper(params.temperature)]
    if params.top_k:
        warpers.append(reference.TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        warpers.append(reference.TopPLogitsWarper(params.top_p))
    scores = logits.unsqueeze(0)
    for warper in warpers:
        scores = warper(None, scores)
    return scores[0]


@settings(max_examples=150)
@given(params=PARAMS, seed=st.integers(0, 10_000))
def test_warping_equals_the_reference(reference, params, seed):
    logits = random_logits(seed)
    expected = reference_warp(reference, logits, params)
    torch.testing.assert_close(sampling.warp(logits, params), expected)


def test_default_parameters_are_the_published_ones_in_the_published_order(monkeypatch):
    called = []
    for name in ("apply_temperature", "keep_top_k", "keep_top_p"):
        original = getattr(sampling, name)

        def record(logits, value, name=name, original=original):
            called.append((name, value))
            return original(logits, value)

        monkeypatch.setattr(sampling, name, record)
    sampling.warp(random_logits(0), SamplingParams())
    expected = RESULTS["official_sampling_warpers_transformers_4_30_2"]
    names = {
        "TemperatureLogitsWarper": ("apply_temperature", "temperature"),
        "TopKLogitsWarper": ("keep_top_k", "top_k"),
        "TopPLogitsWarper": ("keep_top_p", "top_p"),
    }
    assert called == [(names[warper][0], options[names[warper][1]]) for warper, options in expected]


@given(penalty=st.floats(0.5, 3), seen=st.lists(st.integers(0, 49)), seed=st.integers(0, 99))
@settings(max_examples=50)
def test_repetition_penalty_equals_the_reference(reference, penalty, seen, seed):
    logits, ids = random_logits(seed), torch.tensor(seen, dtype=torch.long)
    processor = reference.RepetitionPenaltyLogitsProcessor(penalty)
    expected = processor(ids.unsqueeze(0), logits.unsqueeze(0))[0]
    torch.testing.assert_close(sampling.penalize_repetition(logits, ids, penalty), expected)


def test_penalty_acts_before_everything_else_and_in_greedy_mode():
    logits = torch.tensor([2.0, 1.9, -1.0])
    params = SamplingParams(temperature=0, repetition_penalty=1.2)
    assert sampling.next_token(logits, params, torch.tensor([0]), None) == 1
    assert sampling.next_token(logits, params, torch.tensor([0, 1]), None) == 0


def test_temperature_zero_takes_the_best_id():
    for seed in range(20):
        logits = random_logits(seed)
        chosen = sampling.next_token(logits, SamplingParams(temperature=0), NO_IDS, None)
        assert chosen == int(logits.argmax())


def test_top_p_keeps_at_least_one_id():
    kept = sampling.keep_top_p(random_logits(0), 1e-9)
    assert int(kept.isfinite().sum()) == 1
    assert kept.argmax() == random_logits(0).argmax()


def test_one_seed_gives_one_sequence_whatever_the_global_state():
    def draw(seed):
        source = sampling.make_generator(seed)
        params = SamplingParams(temperature=1.5, top_k=0, top_p=1)
        return [sampling.next_token(random_logits(i), params, NO_IDS, source) for i in range(20)]

    first = draw(7)
    torch.rand(3)
    assert draw(7) == first
    assert draw(8) != first
    assert draw(None) != draw(None)


def test_draws_follow_the_probabilities():
    logits = torch.tensor([0.0, 1.0, 2.0])
    params = SamplingParams(temperature=1, top_k=0, top_p=1)
    source = sampling.make_generator(0)
    drawn = [sampling.next_token(logits, params, NO_IDS, source) for _ in range(4000)]
    shares = torch.bincount(torch.tensor(drawn), minlength=3) / 4000
    torch.testing.assert_close(shares, logits.softmax(0), atol=0.03, rtol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("temperature", [0, 1])
def test_nan_or_infinite_logits_are_an_error_not_a_token(bad, temperature):
    logits = random_logits(0)
    logits[3] = bad
    with pytest.raises(GenerationError, match="NaN"):
        sampling.next_token(logits, SamplingParams(temperature=temperature), NO_IDS, None)


@pytest.mark.parametrize("temperature", [1e-46, 1e-39, 1e-6])
def test_temperatures_next_to_zero_are_greedy_and_do_not_overflow(temperature):
    params = SamplingParams(temperature=temperature)
    assert sampling.next_token(torch.tensor([1.0, 3.0, 2.0]), params, NO_IDS, None) == 1


@pytest.mark.parametrize("penalty", [1e-45, float("inf")])
def test_an_extreme_penalty_does_not_overflow(penalty):
    params = SamplingParams(temperature=0.8, repetition_penalty=penalty, seed=0)
    logits, seen = torch.tensor([1.0, 3.0, -2.0]), torch.tensor([0, 2])
    source = sampling.make_generator(0)
    assert sampling.next_token(logits, params, seen, source) in {0, 1, 2}


@pytest.mark.parametrize("seed", [-1, 2**64, 10**30])
def test_a_seed_outside_64_bits_is_a_config_error(seed):
    with pytest.raises(ConfigError, match="seed"):
        sampling.make_generator(seed)
