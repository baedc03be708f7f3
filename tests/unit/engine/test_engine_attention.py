"""The three ways to compute attention agree, and none copies keys for every head."""

from __future__ import annotations

import pytest
import torch

from glm_rag.engine.attention import attend, attend_expanded, attend_folded, attend_grouped

GENERATOR = torch.Generator().manual_seed(0)


def naive(queries, keys, values, mask):
    """Scores head by head, in double precision."""
    heads, dim = queries.shape[2:]
    per_group = heads // keys.shape[1]
    k, v = (x.double().repeat_interleave(per_group, 1) for x in (keys, values))
    scores = queries.double().transpose(1, 2) @ k.transpose(-1, -2) / dim**0.5
    scores = scores.masked_fill(~mask.unsqueeze(1), float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).float()


def inputs(batch, new, total, heads=6, groups=2, dim=8, capacity=50):
    def random(*shape):
        return torch.randn(*shape, generator=GENERATOR)

    stored = random(2, batch, groups, capacity, dim)
    return random(batch, new, heads, dim), stored[0, :, :, :total], stored[1, :, :, :total]


@pytest.mark.parametrize("way", [attend_folded, attend_grouped, attend_expanded])
@pytest.mark.parametrize(("batch", "new", "total"), [(1, 1, 20), (1, 4, 20), (3, 4, 4), (2, 9, 33)])
def test_masked_attention_equals_the_definition(way, batch, new, total):
    queries, keys, values = inputs(batch, new, total)
    mask = torch.ones(batch, new, total, dtype=torch.bool).tril(total - new)
    mask[0, :, 0] = new == total  # one blocked column where every row still sees another
    expected = naive(queries, keys, values, mask)
    torch.testing.assert_close(way(queries, keys, values, mask), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("new", [1, 2, 9, 40])
def test_no_mask_means_causal_from_an_empty_cache(new):
    queries, keys, values = inputs(2, new, new)
    mask = torch.ones(1, new, new, dtype=torch.bool).tril()
    expected = naive(queries, keys, values, mask).flatten(2)
    for way in (attend, *([] if new == 1 else [lambda *a: attend_expanded(*a).flatten(2)])):
        torch.testing.assert_close(way(queries, keys, values, None), expected, atol=1e-5, rtol=0)


def test_one_new_token_sees_all_cached_ones_without_a_mask():
    queries, keys, values = inputs(2, 1, 31)
    expected = naive(queries, keys, values, torch.ones(1, 1, 31, dtype=torch.bool)).flatten(2)
    torch.testing.assert_close(attend(queries, keys, values, None), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("new", [3, 200])
def test_few_and_many_rows_agree(new):
    queries, keys, values = inputs(1, new, 300, capacity=300)
    mask = torch.ones(1, new, 300, dtype=torch.bool).tril(300 - new)
    expected = naive(queries, keys, values, mask).flatten(2)
    torch.testing.assert_close(attend(queries, keys, values, mask), expected, atol=1e-5, rtol=0)
