"""Run in a process of its own, with or without TRITON_INTERPRET=1: the Triton kernel's results.

Usage: triton_cases.py products | compile. Prints one JSON object, case -> number.
"""

from __future__ import annotations

import itertools
import json
import sys

import torch

from glm_rag.engine.kernels import triton_linear
from glm_rag.engine.quantize import dequantize, quantize

# Rows of x, output channels, columns; K is 32 times an odd number in half of them.
SHAPES = [
    (1, 16, 128), (1, 100, 32 * 9), (2, 37, 384), (3, 5, 32 * 3),
    (4, 65, 256), (5, 130, 32 * 5), (17, 100, 384), (70, 70, 32 * 7),
]  # fmt: skip


def product_error(bits: int, group: int, dtype: torch.dtype, shape: tuple[int, int, int]) -> float:
    """Relative error of one product against the dequantized matrix in float64."""
    rows, channels, columns = shape
    torch.manual_seed(bits * group + sum(shape))
    weight = quantize(torch.randn(channels, columns), bits, group)
    x = torch.randn(rows, columns).to(dtype)
    out = triton_linear.linear(x, weight)
    assert out.shape == (rows, channels), out.shape
    assert out.dtype == dtype, out.dtype
    expected = x.double() @ dequantize(weight).double().T
    return float((out.double() - expected).norm() / expected.norm())


def products() -> dict[str, float]:
    """Every width and group with every shape; the 16-bit types with some.

    Triton's interpreter cannot multiply bfloat16 matrices (3.7): that path is only compiled.
    """
    errors = {}
    for bits, group, shape in itertools.product((4, 8), (32, 128), SHAPES):
        name = f"int{bits}-g{group}-float32-{'x'.join(map(str, shape))}"
        errors[name] = product_error(bits, group, torch.float32, shape)
    for bits, dtype, shape in itertools.product(
        (4, 8), (torch.float16, torch.bfloat16), SHAPES[1:8:2]
    ):
        if dtype == torch.bfloat16 and shape[0] > triton_linear.FEW_ROWS:
            continue
        name = f"int{bits}-g32-{str(dtype)[6:]}-{'x'.join(map(str, shape))}"
        errors[name] = product_error(bits, 32, dtype, shape)
    return errors


def compiled() -> dict[str, int]:
    """Bytes of machine code for devices that are not here."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    sizes = {}
    pointers = {"words_ptr": "*i32", "scales_ptr": "*fp16"}
    numbers = dict.fromkeys(("num_rows", "channels", "columns"), "i32")
    for (capability, kind), bits, rows in itertools.product(
        ((75, "fp16"), (80, "bf16"), (90, "bf16")), (4, 8), (1, 64)
    ):
        signature = {"x_ptr": f"*{kind}", "out_ptr": f"*{kind}", **pointers, **numbers}
        constants = {"BITS": bits, "GROUP": 32, **triton_linear.tiles(rows)}
        names = triton_linear.linear_kernel.arg_names
        source = ASTSource(
            triton_linear.linear_kernel,
            {name: signature.get(name, "constexpr") for name in names},
            {(names.index(name),): value for name, value in constants.items()},
        )
        code = triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]
        sizes[f"sm_{capability}-int{bits}-{rows}-rows-{kind}"] = len(code)
    return sizes


if __name__ == "__main__":
    json.dump(products() if sys.argv[1] == "products" else compiled(), sys.stdout)
