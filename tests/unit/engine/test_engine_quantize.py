"""Rounding, the packed layout, and the published format."""

from __future__ import annotations

import pytest
import torch
from golden_values import GOLDEN

from glm_rag.engine.quantize import (
    QuantizedTensor,
    choose_group,
    dequantize,
    dequantize_rows,
    from_official,
    pack,
    quantize,
    unpack,
)
from glm_rag.errors import ConfigError

KINDS = [(4, 32), (4, 128), (8, 32), (8, 128)]
PUBLISHED = GOLDEN["derived_quantization"]


def random_matrix(rows=50, columns=256, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("bits", "group"), KINDS)
def test_packing_loses_nothing(bits, group):
    low, high = -(1 << (bits - 1)), 1 << (bits - 1)
    values = torch.randint(low, high, (37, 256), dtype=torch.int8)
    scales = torch.rand(37, 256 // group).half()
    restored_values, restored_scales = unpack(pack(values, scales, bits, group))
    assert torch.equal(restored_values, values)
    assert torch.equal(restored_scales, scales)


def test_each_int4_value_stands_where_the_layout_says():
    values = torch.randint(-8, 8, (48, 64), dtype=torch.int8)
    packed = pack(values, torch.ones(48, 2).half(), 4, 32).packed  # [3, 8, 64]
    for row, column in ((0, 0), (17, 5), (47, 63), (30, 12)):
        byte = packed[row // 16, column // 8, 4 * (row % 16) + column % 4].item()
        nibble = byte >> 4 if column % 8 >= 4 else byte & 15
        assert nibble - 8 == values[row, column]


def test_each_int8_value_stands_where_the_layout_says():
    values = torch.randint(-128, 128, (48, 64), dtype=torch.int8)
    packed = pack(values, torch.ones(48, 2).half(), 8, 32).packed  # [3, 16, 64]
    for row, column in ((0, 0), (17, 5), (47, 63), (30, 12)):
        byte = packed[row // 16, column // 4, 4 * (row % 16) + column % 4].item()
        assert byte - 128 == values[row, column]


@pytest.mark.parametrize(("bits", "group"), KINDS)
def test_no_value_moves_by_more_than_half_a_step(bits, group):
    weight = random_matrix()
    rounded = quantize(weight, bits, group)
    steps = unpack(rounded)[1].float().abs().repeat_interleave(group, dim=1)
    # int4 has no +8: on the side opposite to the largest value one step may be cut.
    allowed = steps * (0.5 if bits == 8 else 1.0)
    assert ((dequantize(rounded) - weight).abs() <= allowed * 1.01).all()
    assert ((dequantize(rounded) - weight).abs() <= steps * 0.51).float().mean() > 0.98


@pytest.mark.parametrize(("bits", "group"), KINDS)
def test_zero_rows_and_groups_stay_exactly_zero(bits, group):
    weight = random_matrix()
    weight[3] = 0
    weight[7, :group] = 0
    restored = dequantize(quantize(weight, bits, group))
    assert not restored[3].any()
    assert not restored[7, :group].any()
    assert restored.isfinite().all()


@pytest.mark.parametrize("bits", [4, 8])
def test_rows_by_number_are_the_rows_of_the_matrix(bits):
    weight = quantize(random_matrix(), bits, 32)
    numbers = torch.tensor([[0, 49, 17], [17, 1, 16]])
    rows = dequantize_rows(weight, numbers, torch.float32)
    assert torch.equal(rows, dequantize(weight)[numbers])


def test_a_group_that_does_not_divide_falls_back_to_32():
    assert choose_group(576, 128) == 32
    assert choose_group(512, 128) == 128
    with pytest.raises(ConfigError, match="48 columns cannot be quantized"):
        choose_group(48, 32)


@pytest.mark.parametrize("bits", [4, 8])
def test_published_bytes_mean_what_the_published_code_makes_of_them(bits):
    """The examples are 8 columns wide; a matrix here has at least 32, so they stand 4 times."""
    golden = PUBLISHED[f"int{bits}"]
    if bits == 4:
        stored = torch.tensor(golden["packed_bytes_unsigned"], dtype=torch.uint8).view(torch.int8)
    else:
        stored = torch.tensor(golden["q"], dtype=torch.int8)
    scale = torch.tensor(golden["scale"]).half()
    matrix = from_official(stored.repeat(1, 4), scale, bits)
    values, scales = unpack(matrix)
    assert values.tolist() == [row * 4 for row in golden["q"]]
    assert torch.equal(scales, scale.unsqueeze(1))
    expected = torch.tensor(golden["q"]).repeat(1, 4) * scale.float().unsqueeze(1)
    assert torch.equal(dequantize(matrix), expected)
    published = torch.tensor(golden["dequant"]).repeat(1, 4)
    assert torch.allclose(dequantize(matrix), published, rtol=5e-4)  # scales there are float32


def test_int4_is_half_the_size_of_int8():
    def size(weight: QuantizedTensor) -> int:
        return weight.packed.nbytes + weight.scales.nbytes

    weight = random_matrix(64, 256)
    assert size(quantize(weight, 4, 32)) == 64 * 256 * 4.5 / 8
    assert size(quantize(weight, 8, 128)) == 64 * 256 * 8.125 / 8
