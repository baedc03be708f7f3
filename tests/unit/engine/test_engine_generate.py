"""Generation: exact under caching, bounded, streamed, and gone when closed."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glm_rag.engine.cache import GROWTH_STEP
from glm_rag.errors import ConfigError, ContextWindowError, GenerationError
from glm_rag.types import ChatTurn, SamplingParams
from tiny_checkpoints import TINY, tiny_engine

GREEDY = SamplingParams(max_tokens=24, temperature=0)
PROMPT = list(b"The quick brown fox jumps over the lazy dog")


@pytest.fixture(scope="module")
def engine():
    return tiny_engine()


def ids_of(deltas) -> list[int]:
    return [i for delta in deltas for i in delta.token_ids]


def by_hand(engine, prompt, steps) -> list[int]:
    """Greedy decoding that computes everything anew for each id, up to an end id."""
    ids = list(prompt)
    for _ in range(steps):
        best = int(engine.logits(ids)[-1, : engine.tokenizer.vocab_size].argmax())
        if best in engine.tokenizer.eos_token_ids:
            break
        ids.append(best)
    return ids[len(prompt) :]


def test_cached_decoding_equals_computing_everything_anew(engine):
    deltas = list(engine.generate(PROMPT, GREEDY))
    assert ids_of(deltas) == by_hand(engine, PROMPT, 24)
    assert "".join(d.text for d in deltas) == engine.tokenizer.decode(ids_of(deltas))


def test_only_the_last_delta_has_reason_and_usage(engine):
    *rest, last = engine.generate(PROMPT, GREEDY)
    assert all(d.finish_reason is None and d.usage is None for d in rest)
    assert last.finish_reason == "length"
    usage = last.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens) == (43, 24, 0)


@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_chunk_size_changes_nothing(engine, chunk):
    other = tiny_engine()
    other.prefill_chunk = chunk
    assert ids_of(other.generate(PROMPT, GREEDY)) == ids_of(engine.generate(PROMPT, GREEDY))


def test_one_seed_gives_one_text(engine):
    params = SamplingParams(max_tokens=20, temperature=1.5, top_k=0, top_p=1, seed=3)
    first = ids_of(engine.generate(PROMPT, params))
    assert ids_of(engine.generate(PROMPT, params)) == first


def test_unused_ids_are_never_sampled():
    engine = tiny_engine()
    with torch.no_grad():
        engine.model.output_layer.weight[259:] *= 100  # padding rows shout
    params = SamplingParams(max_tokens=200, temperature=2.0, top_k=0, top_p=1, seed=0)
    assert max(ids_of(engine.generate(PROMPT, params))) < engine.tokenizer.vocab_size


def test_an_end_id_stops_and_is_no_part_of_the_answer(engine, monkeypatch):
    free = ids_of(engine.generate(PROMPT, GREEDY))
    end = free[5]
    monkeypatch.setattr(engine.tokenizer, "eos_token_ids", frozenset({end}))
    deltas = list(engine.generate(PROMPT, GREEDY))
    assert ids_of(deltas) == free[: free.index(end)]
    assert deltas[-1].finish_reason == "stop"


def test_a_stop_string_ends_the_answer_before_it(engine):
    text = "".join(d.text for d in engine.generate(PROMPT, GREEDY))
    stop = text[6:9]
    params = SamplingParams(max_tokens=24, temperature=0, stop=(stop,))
    deltas = list(engine.generate(PROMPT, params))
    assert "".join(d.text for d in deltas) == text[: text.index(stop)]
    assert deltas[-1].finish_reason == "stop"
    assert deltas[-1].usage.output_tokens < 24


def test_repetition_penalty_counts_the_prompt(engine):
    plain = ids_of(engine.generate(PROMPT, GREEDY))
    params = SamplingParams(max_tokens=24, temperature=0, repetition_penalty=1e6)
    new = ids_of(engine.generate(PROMPT, params))
    assert len(set(new)) == len(new)
    assert not set(new) & set(PROMPT)
    assert plain != new


# ---------------------------------------------------------------- window and input


def test_a_prompt_that_fills_the_window_is_refused_before_computing(engine, monkeypatch):
    monkeypatch.setattr(engine, "model", None)
    for length in (TINY.seq_length, TINY.seq_length + 1):
        with pytest.raises(ContextWindowError, match=str(TINY.seq_length)):
            engine.generate([1] * length, GREEDY)


def test_answers_are_clipped_to_what_the_window_leaves():
    engine = tiny_engine(seq_length=50)
    deltas = list(engine.generate(PROMPT, GREEDY))
    assert deltas[-1].usage.output_tokens == 7
    assert deltas[-1].finish_reason == "length"


@pytest.mark.parametrize("prompt", [[], [-1], [TINY.padded_vocab_size], [3, 10**9]])
def test_prompts_without_meaning_are_refused(engine, prompt):
    with pytest.raises(ConfigError):
        engine.generate(prompt, GREEDY)
    with pytest.raises(ConfigError):
        engine.logits(prompt)


def test_too_many_ids_for_logits_are_refused(engine):
    with pytest.raises(ContextWindowError):
        engine.logits([1] * (TINY.seq_length + 1))


def test_broken_weights_raise_instead_of_babbling():
    engine = tiny_engine()
    with torch.no_grad():
        engine.model.encoder.final_layernorm.weight[0] = float("nan")
    with pytest.raises(GenerationError):
        list(engine.generate(PROMPT, GREEDY))


# ---------------------------------------------------------------- cache


def test_a_follow_up_reuses_the_cache_and_changes_nothing(engine):
    cache = engine.new_cache()
    answer = ids_of(engine.generate(PROMPT, GREEDY, cache=cache))
    follow_up = [*PROMPT, *answer, *b" and then?"]
    expected = ids_of(engine.generate(follow_up, GREEDY))
    deltas = list(engine.generate(follow_up, GREEDY, cache=cache))
    assert ids_of(deltas) == expected
    assert deltas[-1].usage.cached_tokens == len(PROMPT) + len(answer) - 1


def test_a_chat_continued_by_kept_ids_reuses_all_of_it(engine):
    cache, tokenizer = engine.new_cache(), engine.tokenizer
    question = ChatTurn("user", "hi")
    first = tokenizer.encode_chat([question])
    answer = tuple(ids_of(engine.generate(first, GREEDY, cache=cache)))
    turns = [question, ChatTurn("assistant", tokenizer.decode(answer), answer), question]
    deltas = list(engine.generate(tokenizer.encode_chat(turns), GREEDY, cache=cache))
    assert deltas[-1].usage.cached_tokens == len(first) + len(answer) - 1


def test_the_same_prompt_again_computes_one_token(engine):
    cache = engine.new_cache()
    first = ids_of(engine.generate(PROMPT, GREEDY, cache=cache))
    deltas = list(engine.generate(PROMPT, GREEDY, cache=cache))
    assert ids_of(deltas) == first
    assert deltas[-1].usage.cached_tokens == len(PROMPT) - 1


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=2, max_size=4))
@example([[0], [3, 0, 3, 0, 1, 0, 2, 2]])  # the third id ends the answer
def test_any_order_of_prompts_through_one_cache_is_exact(prompts):
    engine = _SHARED
    params = SamplingParams(max_tokens=3, temperature=0)
    cache = engine.new_cache()
    for prompt in prompts:
        assert ids_of(engine.generate(prompt, params, cache=cache)) == by_hand(engine, prompt, 3)


_SHARED = tiny_engine()


def test_a_cache_survives_a_broken_off_answer(engine):
    cache = engine.new_cache()
    stream = engine.generate(PROMPT, GREEDY, cache=cache)
    for _ in range(4):
        next(stream)
    stream.close()
    assert ids_of(engine.generate(PROMPT, GREEDY, cache=cache)) == by_hand(engine, PROMPT, 24)


def test_a_cache_survives_a_failed_computation(engine, monkeypatch):
    cache = engine.new_cache()
    expected = ids_of(engine.generate(PROMPT, GREEDY, cache=cache))
    last = engine.model.encoder.layers[-1]

    def fail(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(last, "forward", fail)
        with pytest.raises(KeyboardInterrupt):
            list(engine.generate([*PROMPT, 1, 2, 3], GREEDY, cache=cache))
    assert ids_of(engine.generate(PROMPT, GREEDY, cache=cache)) == expected


def test_a_cache_of_another_model_is_refused(engine):
    for other in (tiny_engine(num_layers=3), tiny_engine(dtype=torch.bfloat16)):
        with pytest.raises(ConfigError, match="another model"):
            engine.generate(PROMPT, GREEDY, cache=other.new_cache())


def test_a_cache_grows_in_steps_and_keeps_what_it_holds(engine):
    cache = engine.new_cache()
    assert cache.num_bytes == 0
    cache.reserve(3)
    assert cache.capacity == GROWTH_STEP
    long = [i % 250 for i in range(700)]
    expected = ids_of(engine.generate(long, GREEDY))
    ids_of(engine.generate(long[:100], GREEDY, cache=cache))
    assert ids_of(engine.generate(long, GREEDY, cache=cache)) == expected
    assert cache.capacity % GROWTH_STEP == 0


def test_a_cache_cannot_be_cut_to_more_than_it_holds(engine):
    cache = engine.new_cache()
    for wrong in (-1, 1):
        with pytest.raises(ConfigError):
            cache.truncate(wrong)


# ---------------------------------------------------------------- memory


def count_tensors() -> int:
    gc.collect()
    return sum(isinstance(x, torch.Tensor) for x in gc.get_objects() if type(x) is torch.Tensor)


def test_closing_the_stream_frees_its_cache(engine, monkeypatch):
    made = []
    original = type(engine.model).new_cache

    def remember(model, **options):
        cache = original(model, **options)
        made.append(weakref.ref(cache))
        return cache

    before = count_tensors()
    monkeypatch.setattr(type(engine.model), "new_cache", remember)
    stream = engine.generate(PROMPT, GREEDY)
    next(stream)
    assert made[-1]() is not None
    stream.close()
    assert made[-1]() is None  # at once, without a garbage collection
    del stream
    assert count_tensors() <= before


def test_dropping_an_engine_frees_its_model():
    engine = tiny_engine()
    next(engine.generate(PROMPT, GREEDY))
    model = weakref.ref(engine.model)
    del engine
    gc.collect()
    assert model() is None


def test_prefill_never_builds_a_square_or_repeats_keys(monkeypatch):
    engine = tiny_engine(seq_length=4096)
    from glm_rag.engine import attention

    seen = []
    original = attention.attend

    def watch(queries, keys, values, mask):
        seen.append((queries.shape, keys.shape, None if mask is None else mask.numel()))
        return original(queries, keys, values, mask)

    monkeypatch.setattr(attention, "attend", watch)
    prompt = [i % 250 for i in range(3000)]
    next(engine.generate(prompt, GREEDY))
    assert all(keys[1] == TINY.num_kv_groups for _, keys, _ in seen)
    assert max(queries[1] for queries, _, _ in seen) == 512
    assert max(mask or 0 for _, _, mask in seen) <= 512 * 3000


def test_only_the_last_position_goes_through_the_output_layer(engine):
    rows = []
    hook = engine.model.output_layer.register_forward_hook(
        lambda module, args, output: rows.append(output.numel() // output.shape[-1])
    )
    list(engine.generate(PROMPT, replace(GREEDY, speculate=False)))
    hook.remove()
    assert set(rows) == {1}


def test_caches_of_parallel_answers_do_not_mix(engine):
    other = PROMPT[::-1]
    expected = [ids_of(engine.generate(p, GREEDY)) for p in (PROMPT, other)]
    streams = [engine.generate(p, GREEDY) for p in (PROMPT, other)]
    collected = [[], []]
    for pair in zip(*streams, strict=True):
        for into, delta in zip(collected, pair, strict=True):
            into += delta.token_ids
    assert collected == expected


def test_a_penalty_ignores_prompt_ids_that_are_never_sampled():
    engine = tiny_engine()
    unused = engine.config.padded_vocab_size - 1
    assert unused >= engine.tokenizer.vocab_size
    params = SamplingParams(max_tokens=3, temperature=0, repetition_penalty=1.2)
    assert len(ids_of(engine.generate([unused, *PROMPT], params))) == 3
