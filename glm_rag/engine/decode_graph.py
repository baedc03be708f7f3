"""Decoding on a CUDA device: one recorded graph of kernels for each number of rows.

Launching a step's thousand kernels one by one takes Python longer than a GPU needs to compute
them. A graph launches them at once. It reads tokens, positions and even the address of the KV
cache from device memory, so it serves every sequence.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from glm_rag.engine.cache import KVCache
from glm_rag.engine.memory import first_line

if TYPE_CHECKING:
    from glm_rag.engine.kernels.triton_decode import AttentionShape
    from glm_rag.engine.model import ChatGLM2Model

_LOG = logging.getLogger(__name__)

# Steps of other sizes repeat their last row up to one of these.
ROW_COUNTS = (1, 2, 4, 8, 16)
_TRITON_CAPABILITY = (7, 0)
_MAX_ERROR = 0.05  # of the self-test, relative; rounding in 16 bits stays below a third of it


@dataclass(frozen=True, slots=True)
class StepRow:
    """One new token: its place in its sequence and in the KV cache.

    Attributes:
        sequence: number in the cache's batch.
        start: the first column of the sequence that is neither prefix nor padding.
    """

    token: int
    position: int
    sequence: int
    column: int
    start: int


@dataclass(frozen=True, slots=True)
class _Recorded:
    graph: Any
    steps: Tensor
    logits: Tensor


class DecodeGraphs:
    """The graphs of one model, recorded when first needed. Safe to use from several threads."""

    def __init__(self, model: ChatGLM2Model) -> None:
        self._model = model
        self._graphs: dict[tuple[int, torch.dtype], _Recorded] = {}
        self._pool: Any = None
        self._lock = Lock()

    @torch.inference_mode()
    def decode(self, rows: Sequence[StepRow], cache: KVCache) -> Tensor:
        """Float32 logits `[R, V]` of up to 16 new tokens, which are written to their columns.

        The cache must have room, and the caller advances it.
        """
        count = next(size for size in ROW_COUNTS if size >= len(rows))
        padded = [*rows, *[rows[-1]] * (count - len(rows))]
        steps = step_tensor(padded, cache)
        with self._lock, torch.cuda.device(cache.device):
            recorded = self._graphs.get((count, cache.dtype))
            if recorded is None:
                recorded = self._record(steps.to(cache.device), cache.dtype)
                self._graphs[count, cache.dtype] = recorded
            recorded.steps.copy_(steps)
            recorded.graph.replay()
            return recorded.logits[: len(rows)].clone()

    def _record(self, steps: Tensor, kv_dtype: torch.dtype) -> _Recorded:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        # Compiles the kernels and opens the libraries: neither can be recorded.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            compute(self._model, steps, kv_dtype)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            logits = compute(self._model, steps, kv_dtype)
        return _Recorded(graph, steps, logits)


def step_tensor(rows: Sequence[StepRow], cache: KVCache) -> Tensor:
    """What the kernels of a step read, on the CPU; see `kernels/triton_decode.py`."""
    values = list(cache.layout())
    for row in rows:
        values += astuple(row)
    return torch.tensor(values, dtype=torch.int64)


def compute(model: ChatGLM2Model, steps: Tensor, kv_dtype: torch.dtype) -> Tensor:
    """One step, kernel by kernel: logits `[R, V]` of `steps` (`kernels/triton_decode.py`)."""
    from glm_rag.engine.kernels import triton_decode as kernels

    shape = attention_shape(model, kv_dtype)
    epsilon = model.config.layernorm_epsilon
    tokens = steps[kernels.HEADER :].view(-1, kernels.PER_ROW)[:, 0]
    x: Tensor = model.embedding.word_embeddings(tokens)  # [R, hidden]
    delta: Tensor | None = None
    for layer, block in enumerate(model.encoder.layers):
        attention, mlp = block.self_attention, block.mlp
        normed = kernels.add_norm(x, delta, block.input_layernorm.weight, epsilon)
        qkv = attention.query_key_value(normed)
        delta = attention.dense(kernels.attend(steps, layer, qkv, model.rotary, shape))
        normed = kernels.add_norm(x, delta, block.post_attention_layernorm.weight, epsilon)
        delta = mlp.dense_4h_to_h(kernels.gate(mlp.dense_h_to_4h(normed)))
    normed = kernels.add_norm(x, delta, model.encoder.final_layernorm.weight, epsilon)
    logits: Tensor = model.output_layer(normed).float()
    return logits


def attention_shape(model: ChatGLM2Model, kv_dtype: torch.dtype) -> AttentionShape:
    """What the attention kernels are compiled for."""
    from glm_rag.engine.kernels.triton_decode import AttentionShape

    config = model.config
    heads, groups = config.num_attention_heads, config.num_kv_groups
    return AttentionShape(heads, groups, config.kv_channels, config.rotary_dim, kv_dtype)


def attach_graphs(model: ChatGLM2Model) -> None:
    """Let the model decode by graphs, if it can and gives the modules' logits that way."""
    model.graphs = None
    if reason := unserved(model):
        _LOG.info("decoding without CUDA graphs: %s", reason)
        return
    graphs = DecodeGraphs(model)
    try:
        error = _self_test(model, graphs)
    except torch.OutOfMemoryError:
        raise
    except Exception as failure:  # noqa: BLE001 - compilers and drivers
        _LOG.warning("decoding without CUDA graphs: %s", first_line(failure))
        return
    if not error < _MAX_ERROR:
        _LOG.warning("decoding without CUDA graphs: their results are wrong here")
        return
    model.graphs = graphs


def unserved(model: ChatGLM2Model) -> str:
    """Why no graphs are tried; empty where they are."""
    if model.device.type != "cuda":
        return "no CUDA device"
    if torch.cuda.get_device_capability(model.device) < _TRITON_CAPABILITY:
        return "compute capability below 7.0"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if model.backend is not None and model.backend.name != "triton":
        return f"products by {model.backend.name}"
    if model.rotary.dtype != torch.float32:
        return "a rotary table that is not float32"
    size = model.config.kv_channels
    return "" if size >= 16 and not size & size - 1 else f"heads of {size} dimensions"


@torch.inference_mode()
def _self_test(model: ChatGLM2Model, graphs: DecodeGraphs) -> float:
    """Relative difference to the logits of the modules, behind one other token."""
    first, second = 1, 2
    ours, theirs = model.new_cache(), model.new_cache()
    for cache in (ours, theirs):
        cache.reserve(cache.length + 2)
        model(torch.tensor([[first]], device=model.device), cache)
        cache.advance([first])
    hidden = model(torch.tensor([[second]], device=model.device), theirs)
    expected = model.logits(hidden[0])
    row = StepRow(second, ours.num_tokens, 0, ours.length, ours.num_prefix)
    actual = graphs.decode([row], ours)
    return float((actual - expected).norm() / expected.norm())
