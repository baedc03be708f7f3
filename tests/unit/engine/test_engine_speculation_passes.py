"""Guessing saves passes where text repeats, and stops where it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from guessing import GREEDY, PROMPT, CountedPasses, ids_of
from hypothesis import given
from hypothesis import strategies as st

from glm_rag.engine.engine import Engine
from glm_rag.engine.prompt_lookup import (
    COSTS,
    GRAPH_COSTS,
    NATIVE_COSTS,
    QUANTIZED_GRAPH_COSTS,
    PromptLookup,
    best_length,
)
from glm_rag.types import SamplingParams

# ---------------------------------------------------------------- fewer passes


def test_what_repeats_takes_fewer_passes_than_ids(looping):
    with CountedPasses(looping) as rows:
        deltas = list(looping.generate(PROMPT, GREEDY))
    usage = deltas[-1].usage
    assert usage.output_tokens == 60
    assert len(rows) < 40
    assert max(rows[1:]) > 3
    assert 0 < usage.accepted_tokens <= usage.drafted_tokens
    # Every id comes from a pass of its own or from an accepted draft.
    assert len(rows) + usage.accepted_tokens == usage.output_tokens


def test_without_speculation_each_id_takes_a_pass_of_one_row(looping):
    with CountedPasses(looping) as rows:
        deltas = list(looping.generate(PROMPT, replace(GREEDY, speculate=False)))
    assert rows == [len(PROMPT), *[1] * 59]
    assert (deltas[-1].usage.drafted_tokens, deltas[-1].usage.accepted_tokens) == (0, 0)


def test_failing_guesses_are_soon_no_longer_tried():
    lookup = PromptLookup([1, 2, 3, 0] * 3)
    drafted = []
    for step in range(60):
        # Always where the prompt has been, never on to where it went.
        for token_id in (1, 2, 3):
            lookup.push(token_id)
        drafted.append(len(lookup.draft(100)))
        lookup.push(100 + step)
    assert drafted[0] > 0
    assert sum(drafted[5:]) == 0


def test_guesses_that_come_true_are_tried_again_after_failures():
    lookup = PromptLookup([*range(200)])
    for step in range(20):
        for token_id in (5, 6, 7):
            lookup.push(token_id)
        lookup.draft(100)
        lookup.push(1000 + step)
    lengths = []
    for token_id in range(20, 60):
        lengths.append(len(lookup.draft(100)))
        lookup.push(token_id)
    assert lengths[3] == 0
    assert lengths[-1] >= 6


def test_drafts_follow_the_longest_and_latest_match():
    lookup = PromptLookup([1, 2, 3, 50, 9, 2, 3, 60, 1, 2, 3])
    assert lookup.draft(1) == [50]
    lookup = PromptLookup([1, 2, 3, 50, 8, 1, 2, 3, 60, 7, 1, 2, 3])
    assert lookup.draft(1) == [60]
    assert PromptLookup([1, 2, 3]).draft(5) == []
    assert PromptLookup([]).draft(5) == []


@pytest.mark.parametrize("costs", [COSTS, NATIVE_COSTS, GRAPH_COSTS, QUANTIZED_GRAPH_COSTS])
@given(rate=st.floats(0, 1))
def test_draft_lengths_grow_with_success(costs, rate):
    assert 0 <= best_length(rate, costs) <= max(costs)
    assert best_length(rate, costs) <= best_length(min(rate + 0.1, 1), costs)
    assert best_length(0.05, costs) == 0
    assert best_length(0.95, costs) == max(costs)


def test_a_cheap_pass_is_tried_at_a_lower_rate():
    ids = [1, 2, 3, 9, 9, 9, 9, 1, 2, 3]
    dear = PromptLookup(ids, costs={3: 3.9})
    assert dear.draft(8) == []
    assert len(PromptLookup(ids, costs={3: 1.1}).draft(8)) == 3


# ---------------------------------------------------------------- a trained model


@pytest.mark.parametrize("temperature", [0, 0.8])
@pytest.mark.parametrize("penalty", [1.0, 1.2])
def test_a_trained_model_quotes_the_same_text_in_fewer_passes(smollm2, temperature, penalty):
    trained = Engine.load(smollm2)
    passage = (
        "Parental leave lasts 26 weeks for every employee. It may be taken in two parts, and the "
        "second part must begin within 18 months of the birth."
    )
    prompt = trained.tokenizer.encode_prompt(f"{passage}\n\n" * 3 + passage[:30])
    params = SamplingParams(
        max_tokens=40, temperature=temperature, seed=4, repetition_penalty=penalty
    )
    plain = list(trained.generate(prompt, replace(params, speculate=False)))
    with CountedPasses(trained) as rows:
        drafted = list(trained.generate(prompt, params))
    assert ids_of(drafted) == ids_of(plain)
    assert len(rows) <= len(ids_of(plain)) + 1  # the end id takes a pass too
    if penalty == 1 and temperature == 0:
        assert len(rows) < len(ids_of(plain)) / 1.5
