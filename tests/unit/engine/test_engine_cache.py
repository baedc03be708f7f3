"""The KV cache: 8-bit storage within a bound, copies, files that are whole or ignored."""

from __future__ import annotations

import pytest
import torch
from test_engine_attention import naive
from test_engine_generate import GREEDY, PROMPT, ids_of

from glm_rag.engine.attention import attend_int8
from glm_rag.engine.cache import KVCache, LayerView, column_bytes, quantize_rows
from glm_rag.engine.cache_file import load_cache, read_header, save_cache
from glm_rag.engine.generate import prefill
from glm_rag.errors import CheckpointError, ConfigError
from tiny_checkpoints import TINY, tiny_engine

DTYPES = [torch.float32, torch.bfloat16, torch.int8]
LONG = [(9 * i + i // 50) % 250 for i in range(300)]


def engine_with(kv_dtype):
    """A float32 model with an 8-bit cache, or a model of that dtype."""
    engine = tiny_engine(dtype=torch.float32 if kv_dtype == torch.int8 else kv_dtype)
    engine.model.kv_dtype = kv_dtype
    return engine


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "cache"
    path.mkdir()
    return path


def columns(cache: KVCache) -> list[torch.Tensor]:
    return list(cache.tensors().values())


def same(one: KVCache, other: KVCache) -> bool:
    pairs = zip(columns(one), columns(other), strict=True)
    return one.token_ids == other.token_ids and all(torch.equal(a, b) for a, b in pairs)


# ---------------------------------------------------------------- 8 bit


def test_a_row_in_8_bit_is_off_by_half_a_step_at_most():
    rows = torch.randn(5, 3, 16, generator=torch.Generator().manual_seed(1))
    rows[0, 0] = 0
    values, scales = quantize_rows(rows)
    assert torch.equal(scales, rows.abs().amax(-1) / 127)
    error = (values * scales.unsqueeze(-1) - rows).abs()
    assert (error <= scales.unsqueeze(-1) * 0.5001).all()


@pytest.mark.parametrize(("new", "total"), [(1, 2500), (4, 1100), (9, 9), (3, 1024)])
def test_attention_over_8_bit_is_exact_for_the_stored_values(new, total):
    source = torch.Generator().manual_seed(2)
    queries = torch.randn(2, new, 6, 8, generator=source)
    stored = [quantize_rows(torch.randn(2, 2, total, 8, generator=source)) for _ in range(2)]
    (keys, key_scales), (values, value_scales) = stored
    mask = torch.ones(2, new, total, dtype=torch.bool).tril(total - new)
    mask[0, :, : total - new] = False  # padding over whole blocks
    dense = [x * scales.unsqueeze(-1) for x, scales in stored]
    view = LayerView(keys, values, key_scales, value_scales)
    expected = naive(queries, *dense, mask)
    torch.testing.assert_close(attend_int8(queries, view, mask), expected, atol=1e-5, rtol=1e-5)
    causal = torch.ones(1, new, total, dtype=torch.bool).tril(total - new)
    if new in (1, total):
        expected = naive(queries, *dense, causal)
        torch.testing.assert_close(attend_int8(queries, view, None), expected, atol=1e-5, rtol=1e-5)


def test_an_8_bit_cache_costs_no_more_precision_than_bfloat16():
    exact = tiny_engine().logits(LONG)
    errors = [
        ((engine.logits(LONG) - exact).square().mean().sqrt() / exact.std()).item()
        for engine in (engine_with(torch.int8), tiny_engine(dtype=torch.bfloat16))
    ]
    assert 0 < errors[0] < 0.02
    assert errors[0] < errors[1]


def test_an_8_bit_cache_takes_a_byte_per_value_and_one_scale_per_row():
    cache = engine_with(torch.int8).model.new_cache(capacity=256)
    rows = TINY.num_layers * 2 * TINY.num_kv_groups
    assert cache.num_bytes == 256 * rows * (TINY.kv_channels + 4)
    assert cache.bytes_per_column * 256 == cache.num_bytes
    for dtype in DTYPES:
        cache = engine_with(dtype).new_cache()
        assert column_bytes(TINY, dtype) == cache.bytes_per_column


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_layer_view_is_the_storage_itself_with_contiguous_rows(dtype):
    engine = engine_with(dtype)
    cache = engine.read(PROMPT)
    view = cache.layer(1)
    assert view.keys.shape == (1, TINY.num_kv_groups, len(PROMPT), TINY.kv_channels)
    assert view.keys.stride()[1:] == (cache.capacity * TINY.kv_channels, TINY.kv_channels, 1)
    assert (view.key_scales is None) == (dtype != torch.int8)
    if view.value_scales is not None:
        assert view.value_scales.shape == view.values.shape[:3]
        assert view.value_scales.stride()[1:] == (cache.capacity, 1)
    before = columns(cache)[0].clone()
    view.keys.zero_()
    assert not torch.equal(before, columns(cache)[0])


def test_an_8_bit_cache_serves_a_prefix_and_parallel_rows():
    engine = engine_with(torch.int8)
    engine.model.prefix = torch.randn(2, 2, 2, 5, 16, generator=torch.Generator().manual_seed(0))
    cache = engine.new_cache()
    assert (cache.num_prefix, cache.num_tokens) == (5, 0)
    assert len(ids_of(engine.generate(PROMPT, GREEDY, cache=cache))) > 0


# ---------------------------------------------------------------- copies


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fork_goes_on_like_the_original_and_neither_changes_the_other(dtype):
    engine = engine_with(dtype)
    cache = engine.read(PROMPT)
    kept = [part.clone() for part in columns(cache)]
    fork = cache.fork(20, capacity=100)
    assert (fork.capacity, fork.num_tokens, fork.token_ids) == (100, 20, PROMPT[:20])
    again = engine.new_cache()
    prefill(engine.model, PROMPT[:20], again)
    prefill(engine.model, [1, 2, 3], again)
    logits = prefill(engine.model, [1, 2, 3], fork)
    assert torch.isfinite(logits).all()
    assert fork.token_ids == again.token_ids
    assert all(torch.equal(a, b) for a, b in zip(columns(cache), kept, strict=True))


def test_a_fork_without_more_room_is_as_large_as_its_tokens():
    cache = tiny_engine().read(PROMPT)
    assert cache.capacity > len(PROMPT)
    assert cache.fork(7).num_bytes == 7 * cache.bytes_per_column
    with pytest.raises(ConfigError):
        cache.fork(len(PROMPT) + 1)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_saved_cache_comes_back_to_the_bit(dtype, folder):
    engine = engine_with(dtype)
    cache = engine.read(LONG)
    written = save_cache(cache, folder / "a.safetensors", key="k")
    assert written == (folder / "a.safetensors").stat().st_size
    back = engine.new_cache()
    load_cache(folder / "a.safetensors", back, key="k")
    assert same(cache, back)
    header = read_header(folder / "a.safetensors")
    assert (header.key, header.token_ids.tolist()) == ("k", LONG)
    assert [path.name for path in folder.iterdir()] == ["a.safetensors"]


def test_a_change_of_any_byte_is_noticed(folder):
    engine = tiny_engine()
    path = folder / "a.safetensors"
    save_cache(engine.read(PROMPT), path)
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CheckpointError):
            load_cache(path, engine.new_cache())
    for size in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            load_cache(path, engine.new_cache())


def test_a_saved_cache_of_another_key_shape_or_type_is_refused(folder):
    path = folder / "a.safetensors"
    save_cache(tiny_engine().read(PROMPT), path, key="one")
    with pytest.raises(CheckpointError, match="another model"):
        load_cache(path, tiny_engine().new_cache(), key="two")
    for other in (tiny_engine(num_layers=3), engine_with(torch.int8)):
        with pytest.raises(CheckpointError, match="another model"):
            load_cache(path, other.new_cache(), key="one")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(folder, monkeypatch):
    import os

    engine = tiny_engine()
    path = folder / "a.safetensors"
    save_cache(engine.read(PROMPT), path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="space"):
        save_cache(engine.read(LONG), path)
    assert path.read_bytes() == before
    assert list(folder.iterdir()) == [path]
