"""The three ways to compute attention agree, and none copies keys for every head."""

from __future__ import annotations

import sys
import types

import pytest
import torch

from glm_rag.engine import attention
from glm_rag.engine.attention import (
    attend,
    attend_causal,
    attend_expanded,
    attend_folded,
    attend_grouped,
)

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


@pytest.mark.parametrize(("new", "total"), [(2, 20), (9, 33), (40, 40), (200, 300)])
def test_new_tokens_without_a_mask_are_the_last_of_all(new, total):
    queries, keys, values = inputs(2, new, total, capacity=300)
    mask = torch.ones(1, new, total, dtype=torch.bool).tril(total - new)
    expected = naive(queries, keys, values, mask)
    torch.testing.assert_close(attend_causal(queries, keys, values), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        attend(queries, keys, values, None), expected.flatten(2), atol=1e-5, rtol=0
    )


def test_flash_attn_gets_tokens_before_heads_and_a_causal_rule(monkeypatch):
    seen = {}

    def flash_attn_func(q, k, v, *, causal):
        seen.update(q=q.shape, k=k.shape, v=v.shape, causal=causal)
        mask = torch.ones(1, 4, 20, dtype=torch.bool).tril(16)
        return naive(q, k.transpose(1, 2), v.transpose(1, 2), mask)

    monkeypatch.setattr(attention, "flash_attention", lambda device, dtype: flash_attn_func)
    queries, keys, values = inputs(3, 4, 20)
    context = attend(queries, keys, values, None)
    assert seen == {"q": (3, 4, 6, 8), "k": (3, 20, 2, 8), "v": (3, 20, 2, 8), "causal": True}
    monkeypatch.undo()
    torch.testing.assert_close(context, attend(queries, keys, values, None), atol=1e-5, rtol=0)


def test_flash_attn_is_for_16_bits_on_recent_devices_where_it_can_be_imported(monkeypatch):
    fake = types.ModuleType("flash_attn")
    fake.flash_attn_func = print
    monkeypatch.setitem(sys.modules, "flash_attn", fake)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (8, 0))
    attention._flash_attn_func.cache_clear()
    cuda = torch.device("cuda")
    assert attention.flash_attention(cuda, torch.bfloat16) is print
    assert attention.flash_attention(cuda, torch.float32) is None
    assert attention.flash_attention(torch.device("cpu"), torch.bfloat16) is None
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (7, 5))
    assert attention.flash_attention(cuda, torch.float16) is None
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (8, 0))
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    attention._flash_attn_func.cache_clear()
    assert attention.flash_attention(cuda, torch.float16) is None
    attention._flash_attn_func.cache_clear()
