"""Quantized products and attention on a CUDA device; skipped where there is none."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from glm_rag.engine.attention import attend, attend_cached, attend_expanded, attend_int8
from glm_rag.engine.cache import LayerView, quantize_rows
from glm_rag.engine.kernels.backend import choose_backend
from glm_rag.engine.quantize import QuantizedTensor, dequantize, quantize

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("name", ["triton", "torch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 7, 16, 40, 70])
@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 128), (8, 32), (8, 128)])
def test_products_are_those_of_the_dequantized_matrix(name, dtype, rows, bits, group):
    backend = choose_backend("cuda", prefer=name)
    if backend.name != name:
        pytest.skip(backend.reason)
    weight = quantize(torch.randn(100, 32 * 9), bits, group)
    device = QuantizedTensor(
        weight.packed.cuda(), weight.scales.cuda(), 100, 32 * 9, bits, weight.group
    )
    x = torch.randn(rows, 32 * 9).to(dtype)
    expected = x.double() @ dequantize(weight).double().T
    actual = backend.linear(x.cuda(), device).cpu().double()
    bound = {torch.float32: 5e-3, torch.float16: 5e-3, torch.bfloat16: 2e-2}[dtype]
    assert (actual - expected).norm() / expected.norm() < bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_attention_without_a_mask_equals_the_masked_one(dtype):
    queries = torch.randn(2, 200, 32, 128, device="cuda", dtype=dtype)
    keys, values = torch.randn(2, 2, 2, 700, 128, device="cuda", dtype=dtype)
    mask = torch.ones(1, 200, 700, dtype=torch.bool, device="cuda").tril(500)
    expected = attend_expanded(queries, keys, values, mask).flatten(2)
    error = (attend(queries, keys, values, None) - expected).float().norm()
    assert error < 0.02 * expected.float().norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("num_new", "total"), [(1, 700), (200, 700), (512, 512), (130, 5000)])
def test_attention_without_a_mask_runs_in_the_flash_kernel(dtype, num_new, total):
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("torch's flash attention begins at compute capability 8.0")
    queries = torch.randn(1, num_new, 32, 128, device="cuda", dtype=dtype)
    # As in a KV cache: groups lie further apart than their used columns.
    keys, values = torch.randn(2, 1, 2, total + 77, 128, device="cuda", dtype=dtype)[
        :, :, :, :total
    ]
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):  # raises where it cannot run
        actual = attend(queries, keys, values, None)
    mask = torch.ones(1, num_new, total, dtype=torch.bool, device="cuda").tril(total - num_new)
    wide = [tensor.float() for tensor in (queries, keys, values)]
    expected = attend_expanded(*wide, mask).flatten(2)
    assert (actual.float() - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("num_new", [1, 9, 300])
def test_attention_over_8_bit_columns_equals_the_blockwise_one(num_new):
    queries = torch.randn(1, num_new, 32, 128, device="cuda", dtype=torch.bfloat16)
    keys, values = torch.randn(2, 1, 2, 900, 128, device="cuda")
    (keys, key_scales), (values, value_scales) = quantize_rows(keys), quantize_rows(values)
    view = LayerView(keys, values, key_scales, value_scales)
    expected = attend_int8(queries.float(), view, None).flatten(2)
    error = (attend_cached(queries, view, None).float() - expected).norm()
    assert error < 0.02 * expected.norm()
