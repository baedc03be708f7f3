"""Speculation: the same ids for fewer passes, whatever the guesses are."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_rag.engine import generate
from glm_rag.engine.engine import Engine
from glm_rag.engine.prompt_lookup import (
    COSTS,
    GRAPH_COSTS,
    NATIVE_COSTS,
    QUANTIZED_GRAPH_COSTS,
    PromptLookup,
    best_length,
)
from glm_rag.engine.sampling import TokenSampler
from glm_rag.types import SamplingParams
from tiny_checkpoints import TINY, build_model, byte_tokenizer, random_weights, tiny_engine

GREEDY = SamplingParams(max_tokens=60, temperature=0, loop_guard=False)
PROMPT = list(b"the cat sat on the mat, and the dog sat on the cat; the cat sat on")


@pytest.fixture(scope="module")
def engine():
    return tiny_engine()


@pytest.fixture(scope="module")
def looping():
    """A model that mostly follows one id by another: what it says repeats, so guesses hold."""
    return copying_engine()


def copying_engine(noise: float = 0.3) -> Engine:
    """The head prefers the next byte of an alphabet of 24, with a random model's opinion added."""
    weights = random_weights(TINY, seed=3)
    embedding = weights["transformer.embedding.word_embeddings.weight"]
    head = "transformer.output_layer.weight"
    order = torch.arange(len(embedding))
    order[:24] = (order[:24] - 1) % 24
    weights[head] = embedding[order] + noise * weights[head] * embedding.shape[1] ** 0.5
    return Engine(TINY, build_model(TINY, weights), byte_tokenizer())


class CountedPasses:
    """Rows of every pass through the network."""

    def __init__(self, engine: Engine) -> None:
        self.rows: list[int] = []
        self._hook = engine.model.encoder.layers[0].register_forward_hook(
            lambda module, args, output: self.rows.append(output.shape[1])
        )

    def __enter__(self):
        return self.rows

    def __exit__(self, *exc):
        self._hook.remove()


def ids_of(deltas) -> list[int]:
    return [i for delta in deltas for i in delta.token_ids]


def guess_anything(monkeypatch, seed: int) -> None:
    """Drafts of random length out of a few ids, so that every border is met."""
    source = torch.Generator().manual_seed(seed)

    def draft(self, most, others=0):
        length = min(int(torch.randint(0, 6, (), generator=source)), most)
        self.drafted += length
        return torch.randint(0, 24, (length,), generator=source).tolist()

    monkeypatch.setattr(PromptLookup, "draft", draft)


# ---------------------------------------------------------------- the same answer


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


@settings(max_examples=40, deadline=None)
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


# ---------------------------------------------------------------- ends in the middle of a draft


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
