"""A batch: every row is what its prompt gives alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_rag.engine import batch as batch_module
from glm_rag.errors import ConfigError, ContextWindowError, GenerationError
from glm_rag.types import SamplingParams
from tiny_checkpoints import TINY, tiny_engine

GREEDY = SamplingParams(max_tokens=24, temperature=0)
SAMPLED = SamplingParams(max_tokens=24, temperature=1.2, seed=5)
PROMPTS = [list(b"The quick brown fox"), list(b"x"), list(b"jumps over the lazy dog. " * 4)]


@pytest.fixture(scope="module")
def engine():
    return tiny_engine()


def joined(batch, count):
    """Text, ids, reason and usage of each row."""
    rows = [[] for _ in range(count)]
    for number, delta in batch:
        rows[number].append(delta)
    return [summary(deltas) for deltas in rows]


def summary(deltas):
    ids = [i for delta in deltas for i in delta.token_ids]
    last = deltas[-1]
    assert all(delta.finish_reason is None for delta in deltas[:-1])
    counts = (last.usage.input_tokens, last.usage.output_tokens)
    return "".join(d.text for d in deltas), ids, last.finish_reason, counts


def alone(engine, prompt, params):
    return summary(list(engine.generate(prompt, params)))


@pytest.mark.parametrize("params", [GREEDY, SAMPLED, replace(SAMPLED, repetition_penalty=1.3)])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_every_row_is_what_its_prompt_gives_alone(engine, params, batch_size):
    got = joined(engine.generate_batch(PROMPTS, params, batch_size=batch_size), 3)
    assert got == [alone(engine, prompt, params) for prompt in PROMPTS]


@settings(max_examples=30)
@given(
    rows=st.lists(
        st.tuples(
            st.lists(st.integers(0, 255), min_size=1, max_size=40),
            st.integers(1, 12),
            st.integers(0, 3),
            st.sampled_from([0, 0.9]),
        ),
        min_size=1,
        max_size=6,
    ),
    batch_size=st.integers(1, 6),
)
def test_rows_of_any_lengths_and_settings_do_not_disturb_each_other(rows, batch_size):
    prompts = [prompt for prompt, *_ in rows]
    params = [
        SamplingParams(max_tokens=most, seed=seed, temperature=temperature)
        for _, most, seed, temperature in rows
    ]
    got = joined(_SHARED.generate_batch(prompts, params, batch_size=batch_size), len(rows))
    assert got == [alone(_SHARED, *row) for row in zip(prompts, params, strict=True)]


_SHARED = tiny_engine()


def test_rows_leave_when_they_are_done(engine):
    params = [replace(GREEDY, max_tokens=most) for most in (2, 9, 5)]
    sizes = []
    hook = engine.model.output_layer.register_forward_hook(
        lambda module, args, output: sizes.append(output.numel() // output.shape[-1])
    )
    list(engine.generate_batch(PROMPTS, params))
    hook.remove()
    assert sizes == [1, 1, 1, 3, 2, 2, 2, 1, 1, 1, 1]


def test_end_ids_and_stop_strings_end_only_their_row(engine, monkeypatch):
    free = [alone(engine, prompt, GREEDY) for prompt in PROMPTS]
    monkeypatch.setattr(engine.tokenizer, "eos_token_ids", frozenset({free[0][1][3]}))
    params = [GREEDY, GREEDY, replace(GREEDY, stop=(free[2][0][5:7],))]
    got = joined(engine.generate_batch(PROMPTS, params), 3)
    assert got == [alone(engine, *row) for row in zip(PROMPTS, params, strict=True)]
    assert got[0][2] == "stop"


def test_rows_come_bit_by_bit_and_not_one_after_another(engine):
    order = [number for number, _ in engine.generate_batch(PROMPTS, GREEDY)]
    assert order[:6] == [0, 1, 2, 0, 1, 2]


def test_a_prefix_counts_for_every_row():
    from glm_rag.engine.engine import Engine
    from tiny_checkpoints import build_model, byte_tokenizer, random_weights

    weights = random_weights(TINY)
    model = build_model(TINY, weights)
    shape = (TINY.num_layers, 2, TINY.num_kv_groups, 5, TINY.kv_channels)
    model.prefix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    engine = Engine(TINY, model, byte_tokenizer())
    got = joined(engine.generate_batch(PROMPTS, GREEDY), 3)
    assert got == [alone(engine, prompt, GREEDY) for prompt in PROMPTS]
    assert got[0] != alone(tiny_engine(), PROMPTS[0], GREEDY)


def test_a_batch_is_split_by_free_memory(engine, monkeypatch):
    expected = [alone(engine, prompt, GREEDY) for prompt in PROMPTS]
    most = [0]
    start, leave = batch_module.Batch._start, batch_module.Batch._leave
    running = set()

    def started(self, engine, request):
        running.add(request)
        most.append(len(running))
        return start(self, engine, request)

    def left(self, engine, request, why):
        running.remove(request)
        return leave(self, engine, request, why)

    monkeypatch.setattr(batch_module.Batch, "_start", started)
    monkeypatch.setattr(batch_module.Batch, "_leave", left)
    # Half of what is free takes the second (one token) beside the first, and not the third.
    need = engine.cache_bytes(1 + 24)
    monkeypatch.setattr(batch_module, "available_bytes", lambda device: 2 * need)
    assert joined(engine.generate_batch(PROMPTS, GREEDY), 3) == expected
    assert max(most) == 2


def test_one_wrong_prompt_is_an_error_before_anything_is_computed(engine):
    with pytest.raises(ContextWindowError):
        engine.generate_batch([*PROMPTS, [1] * TINY.seq_length], GREEDY)
    with pytest.raises(ConfigError):
        engine.generate_batch([*PROMPTS, []], GREEDY)
    with pytest.raises(ContextWindowError):
        engine.check_prompt([1] * TINY.seq_length)
    assert list(engine.generate_batch([], GREEDY)) == []


def test_answers_are_clipped_to_the_window_row_by_row():
    engine = tiny_engine(seq_length=110)
    got = joined(engine.generate_batch(PROMPTS, replace(GREEDY, loop_guard=False)), 3)
    assert [row[3][1] for row in got] == [24, 24, 10]


def test_broken_weights_are_an_error_of_the_batch():
    engine = tiny_engine()
    with torch.no_grad():
        engine.model.encoder.final_layernorm.weight[0] = float("nan")
    with pytest.raises(GenerationError):
        list(engine.generate_batch(PROMPTS, GREEDY))
