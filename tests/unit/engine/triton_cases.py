"""Run in a process of its own, with or without TRITON_INTERPRET=1: the Triton kernel's results.

Usage: triton_cases.py products | decode | compile | tiles. Prints one JSON object, by case.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from dataclasses import replace
from typing import Any

import torch

from glm_rag.engine.config import Quantization
from glm_rag.engine.decode_graph import compute, read, step_rows, step_tensor
from glm_rag.engine.generate import prefill
from glm_rag.engine.kernels import triton_decode, triton_linear
from glm_rag.engine.linear import QuantizedMatrix
from glm_rag.engine.model import ChatGLM2Model
from glm_rag.engine.quantize import dequantize, quantize
from glm_rag.engine.weights import attach_kernels, attach_tables
from tiny_checkpoints import TINY, build_model, random_weights

# Rows of x, output channels, columns; K is 32 times an odd number in half of them.
SHAPES = [
    (1, 16, 128), (1, 100, 32 * 9), (2, 37, 384), (3, 5, 32 * 3), (4, 65, 256), (5, 130, 32 * 5),
    (8, 40, 32 * 7), (9, 33, 128), (17, 100, 384), (32, 16, 32), (70, 70, 32 * 7),
]  # fmt: skip
# In float16, for tiles of 8, 16 and 32 rows, of matrices with few and with many blocks.
SHORT_SHAPES = [
    (1, 100, 32 * 9), (2, 37, 32 * 17), (3, 5, 32 * 3), (8, 130, 256), (12, 70, 32 * 33),
    (16, 48, 128), (32, 100, 32 * 9), (70, 70, 32 * 7),
]  # fmt: skip


# Compute capability, and a type of activations that it has.
GENERATIONS = ((75, "fp16"), (80, "bf16"), (90, "bf16"))


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
    """Every width, group and shape in float32 and float16; bfloat16 with one row.

    Triton's interpreter cannot multiply bfloat16 matrices (3.7): tests/gpu has those.
    """
    errors = {}
    for bits, group, shape in itertools.product((4, 8), (32, 128), SHAPES):
        name = f"int{bits}-g{group}-float32-{'x'.join(map(str, shape))}"
        errors[name] = product_error(bits, group, torch.float32, shape)
    for blocks, bits, shape in itertools.product((0, 512), (4, 8), SHORT_SHAPES):
        triton_linear.MANY_BLOCKS = blocks
        group = 128 if shape[2] % 128 == 0 else 32
        name = f"int{bits}-{'few' if blocks else 'many'}-float16-{'x'.join(map(str, shape))}"
        errors[name] = product_error(bits, group, torch.float16, shape)
    for bits, shape in itertools.product((4, 8), SHAPES[:2]):
        name = f"int{bits}-g32-bfloat16-{'x'.join(map(str, shape))}"
        errors[name] = product_error(bits, 32, torch.bfloat16, shape)
    return errors


def decoded() -> dict[str, float]:
    """Relative errors of decoding steps against the modules', logits and cache columns."""
    errors = {}
    int8 = Quantization(8, 32)
    for kv_dtype, kind, prefix in (
        (torch.float32, None, 0), (torch.float32, int8, 5),
        (torch.int8, None, 5), (torch.int8, int8, 0),
    ):  # fmt: skip
        name = f"{str(kv_dtype)[6:]}-{'int8' if kind else 'float32'}-prefix{prefix}"
        torch.manual_seed(1)
        model = decoding_model(kv_dtype, kind, prefix)
        errors[f"{name}-rows of one sequence"] = draft_error(model)
        errors[f"{name}-sequences together"] = together_error(model)
        errors[f"{name}-a prompt"] = prompt_error(model)
    return errors


def decoding_model(kv_dtype: torch.dtype, kind: Quantization | None, prefix: int) -> ChatGLM2Model:
    config = replace(TINY, hidden_size=64, ffn_hidden_size=96, num_attention_heads=6)
    model = build_model(config, random_weights(config))
    if kind is not None:
        weights = model.state_dict()
        model = ChatGLM2Model(replace(config, quantization=kind))
        for matrix_name, matrix in model.named_modules():
            if isinstance(matrix, QuantizedMatrix):
                made = quantize(weights.pop(f"{matrix_name}.weight"), kind.bits, kind.group)
                matrix.packed, matrix.scales = made.packed, made.scales
        model.load_state_dict(weights, strict=False)
        attach_tables(model)
        attach_kernels(model, "torch")
    if prefix:
        model.prefix = torch.randn(2, 2, config.num_kv_groups, prefix, config.kv_channels)
    model.kv_dtype = kv_dtype
    return model


def _difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


@torch.inference_mode()
def draft_error(model: ChatGLM2Model) -> float:
    """Three tokens at once behind 70 others."""
    ours = model.new_cache(capacity=256)
    prefill(model, range(70), ours)
    theirs = ours.fork(capacity=256)
    expected = model.logits(model(torch.tensor([[7, 8, 9]]), theirs)[0])
    actual = compute(model, step_tensor(step_rows((7, 8, 9), ours)), ours.dtype)
    for cache in (ours, theirs):
        cache.advance([7, 8, 9])
    stored = _difference(ours.tensors()["columns"].float(), theirs.tensors()["columns"].float())
    return max(_difference(actual, expected), stored)


@torch.inference_mode()
def prompt_error(model: ChatGLM2Model) -> float:
    """Twenty tokens at once behind seven others: hidden states."""
    ours = model.new_cache(capacity=256)
    prefill(model, range(7), ours)
    theirs = ours.fork(capacity=256)
    token_ids = torch.arange(20).unsqueeze(0)
    return _difference(read(model, token_ids, ours), model(token_ids, theirs))


@torch.inference_mode()
def together_error(model: ChatGLM2Model) -> float:
    """One token of one sequence and two of another, each with a cache of its own size."""
    expected, rows, kept = [], [], []
    for length, token_ids in ((90, (3,)), (33, (4, 5))):
        cache = model.new_cache(capacity=length + 200)
        prefill(model, range(length), cache)
        alone = cache.fork(capacity=256)
        expected.append(model.logits(model(torch.tensor([token_ids]), alone)[0]))
        rows += step_rows(token_ids, cache)
        kept.append(cache)
    actual = compute(model, step_tensor(rows), cache.dtype)
    return _difference(actual, torch.cat(expected))


def compile_for(
    capability: int, kernel: Any, pointers: dict, numbers: dict, constants: dict
) -> Any:
    """A kernel for a device that is not here."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {"num_warps": constants.get("num_warps", 4)}
    constants = {name: value for name, value in constants.items() if name != "num_warps"}
    names = kernel.arg_names
    signature = pointers | numbers
    # As of whole models: all multiples of 16.
    aligned = [["tt.divisibility", 16]]
    source = ASTSource(
        kernel,
        {name: signature.get(name, "constexpr") for name in names},
        {(names.index(name),): value for name, value in constants.items()},
        {(names.index(name),): aligned for name in signature if name not in ("num_rows", "bias")},
    )
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def tiles() -> dict[str, dict[str, Any]]:
    """Of each tile of `some_rows_kernel`: bytes of shared memory, maker of the weights' operand."""
    found = {}
    numbers = dict.fromkeys(("num_rows", "channels", "columns"), "i32")
    pointers = {"x_ptr": "*bf16", "words_ptr": "*i32", "scales_ptr": "*fp16", "out_ptr": "*bf16"}
    for bits, rows, blocks, cores in itertools.product(
        (4, 8), (8, 16, 32), (256, 1024), (True, False)
    ):
        constants = triton_linear.some_rows_tiles(rows, blocks, bits, tensor_cores=cores)
        constants |= {"BITS": bits, "GROUP": 32}
        kernel = triton_linear.some_rows_kernel
        made = compile_for(80, kernel, pointers, numbers, constants)
        code = made.asm["ttgir"]
        weights = re.findall(r"tt\.dot (%\w+),", code)[0]
        maker = re.findall(rf"{weights} = (\S+)", code)[0]
        name = f"int{bits}-{rows} rows-{blocks} blocks-{'tensor cores' if cores else 'plain'}"
        found[name] = {"shared": made.metadata.shared, "maker": maker}
    return found


def compiled() -> dict[str, int]:
    """Bytes of machine code for devices that are not here."""
    import triton.language as tl

    def size_for(*arguments: Any) -> int:
        return len(compile_for(*arguments).asm["cubin"])

    sizes = {}
    numbers = dict.fromkeys(("num_rows", "channels", "columns", "bias"), "i32")
    for (capability, kind), bits in itertools.product(GENERATIONS, (4, 8)):
        pointers = {"words_ptr": "*i32", "scales_ptr": "*fp16", "out_ptr": f"*{kind}"}
        with_x = pointers | {"x_ptr": f"*{kind}"}
        kinds = {"BITS": bits, "GROUP": 32}
        name = f"sm_{capability}-int{bits}-{kind}"
        some, one = triton_linear.some_rows_kernel, triton_linear.one_row_kernel
        for what, kernel, given, tiles in (
            ("one", one, with_x, triton_linear.one_row_tiles(256, bits)),
            ("some", some, with_x, triton_linear.some_rows_tiles(32, 256, bits, capability >= 80)),
            ("expand", triton_linear.expand_kernel, pointers, {"WORDS": 32}),
        ):
            used = {n: t for n, t in numbers.items() if n in kernel.arg_names}
            sizes[f"{name}-{what}"] = size_for(capability, kernel, given, used, kinds | tiles)
    for (capability, kind), kv in itertools.product(GENERATIONS, ("model", "int8")):
        stored = tl.int8 if kv == "int8" else {"fp16": tl.float16, "bf16": tl.bfloat16}[kind]
        common = {"HEADS": 32, "GROUPS": 2, "D": 128, "KV": stored}
        pointers = {"steps": "*i64", "qkv_ptr": f"*{kind}", "queries_ptr": f"*{kind}"}
        pointers |= dict.fromkeys(("table_ptr", "parts_ptr", "sums_ptr"), "*fp32")
        split = {"ROWS": 16, "SPLITS": 64, "BLOCK": 64}
        for what, kernel, constants in (
            ("rotate", triton_decode.rotate_store_kernel, {"TURNED": 64}),
            ("attend", triton_decode.attend_kernel, split),
        ):
            used = {n: t for n, t in pointers.items() if n in kernel.arg_names}
            numbers = {"layer": "i32"} | ({"factor": "fp32"} if what == "attend" else {})
            sizes[f"sm_{capability}-{what}-{kv}"] = size_for(
                capability, kernel, used, numbers, common | constants
            )
    return sizes


if __name__ == "__main__":
    cases = {"products": products, "decode": decoded, "compile": compiled, "tiles": tiles}
    json.dump(cases[sys.argv[1]](), sys.stdout)
