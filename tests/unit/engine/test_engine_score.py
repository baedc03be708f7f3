"""How likely a continuation is: the same number however it is computed."""

import pytest
import torch

from glm_rag.errors import ConfigError, ContextWindowError, GenerationError
from glm_rag.types import CacheLimits
from tiny_checkpoints import tiny_engine

PROMPT, SAID = [5, 9, 77, 12, 40], [8, 8, 31, 2]


def by_logits(engine, prompt, said):
    """The definition, from the logits of the whole sequence."""
    rows = engine.logits([*prompt, *said])[len(prompt) - 1 : -1].log_softmax(-1)
    return float(rows[range(len(said)), said].mean())


@pytest.fixture(scope="module")
def engine():
    return tiny_engine()


@pytest.mark.parametrize(("prompt", "said"), [(PROMPT, SAID), (PROMPT, [7]), ([3], SAID)])
def test_the_score_is_the_mean_log_probability_by_the_logits(engine, prompt, said):
    assert engine.score(prompt, said) == pytest.approx(by_logits(engine, prompt, said), abs=1e-5)


def test_the_size_of_the_pieces_changes_nothing(engine):
    whole = engine.score(PROMPT, SAID)
    engine.prefill_chunk, before = 2, engine.prefill_chunk
    try:
        assert engine.score(PROMPT, SAID) == pytest.approx(whole, abs=1e-5)
    finally:
        engine.prefill_chunk = before


def test_a_kept_prompt_is_not_computed_again_and_scores_the_same(monkeypatch):
    engine = tiny_engine()
    expected = engine.score(PROMPT, SAID)
    engine.keep_sequences(CacheLimits(memory_bytes=10**7))
    assert engine.score(PROMPT, SAID) == pytest.approx(expected, abs=1e-5)
    computed = []
    read = engine.model.read_together

    def counting(ids, shares, **options):
        computed.append(ids.shape[1])
        return read(ids, shares, **options)

    monkeypatch.setattr(engine.model, "read_together", counting)
    assert engine.score(PROMPT, [8, 8]) == pytest.approx(by_logits(tiny_engine(), PROMPT, [8, 8]))
    assert sum(computed) == 2  # the last token of the prompt, and the first of the continuation


def test_what_is_kept_of_a_scored_prompt_is_the_prompt(monkeypatch):
    engine = tiny_engine()
    engine.keep_sequences(CacheLimits(memory_bytes=10**7))
    engine.score(PROMPT, SAID)
    kept = engine.store.start([*PROMPT, *SAID], engine.new_cache, room=20)
    assert list(kept.token_ids) == PROMPT


def test_what_cannot_be_scored_is_refused():
    engine = tiny_engine()
    with pytest.raises(ConfigError, match="continuation is empty"):
        engine.score(PROMPT, [])
    with pytest.raises(ConfigError, match="prompt is empty"):
        engine.score([], SAID)
    with pytest.raises(ConfigError, match="not in this model's vocabulary"):
        engine.score(PROMPT, [10**6])
    with pytest.raises(ContextWindowError):
        engine.score([1] * engine.context_window, SAID)


def test_broken_weights_raise_instead_of_ranking():
    engine = tiny_engine()
    with torch.no_grad():
        next(iter(engine.model.parameters())).fill_(float("nan"))
    with pytest.raises(GenerationError):
        engine.score(PROMPT, SAID)
