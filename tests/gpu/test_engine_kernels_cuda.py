"""Quantized products and attention on a CUDA device; skipped where there is none."""

from __future__ import annotations

import pytest
import torch

from glm_rag.engine.attention import attend, attend_expanded
from glm_rag.engine.kernels.backend import choose_backend
from glm_rag.engine.quantize import QuantizedTensor, dequantize, quantize

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("name", ["triton", "torch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 5, 70])
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
