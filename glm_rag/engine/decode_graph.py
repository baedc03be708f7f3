"""The network on a CUDA device in few kernels; decoding by one recorded graph of them per number
of rows.

Launching a step's thousand kernels one by one takes Python longer than a GPU needs to compute
them. A graph launches them at once. It reads tokens, positions and even the addresses of the KV
caches from device memory, so it serves every mixture of sequences.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from glm_rag.engine.attention import attend_cached
from glm_rag.engine.cache import KVCache
from glm_rag.engine.memory import first_line

if TYPE_CHECKING:
    from glm_rag.engine.kernels.triton_decode import AttentionShape
    from glm_rag.engine.model import ChatGLM2Model

_LOG = logging.getLogger(__name__)

# Steps of other sizes repeat their last row up to one of these.
ROW_COUNTS = (1, 2, 4, 8, 16, 32)
_TRITON_CAPABILITY = (7, 0)
_MAX_ERROR = 0.05  # of the self-test, relative; rounding in 16 bits stays below a third of it


@dataclass(frozen=True, slots=True)
class StepRow:
    """One new token: its place in its sequence and in the KV cache of that sequence.

    Attributes:
        storage, scales, capacity: `KVCache.layout`.
    """

    token: int
    position: int
    column: int
    storage: int
    scales: int
    capacity: int


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
    def decode(self, rows: Sequence[StepRow], kv_dtype: torch.dtype) -> Tensor:
        """Float32 logits `[R, V]` of up to 32 new tokens, which are written to their columns.

        The caches must have room, and the caller advances them.
        """
        count = next(size for size in ROW_COUNTS if size >= len(rows))
        padded = [*rows, *[rows[-1]] * (count - len(rows))]
        steps, device = step_tensor(padded), self._model.device
        with self._lock, torch.cuda.device(device):
            recorded = self._graphs.get((count, kv_dtype))
            if recorded is None:
                recorded = self._record(steps.to(device), kv_dtype)
                self._graphs[count, kv_dtype] = recorded
            recorded.steps.copy_(steps)
            recorded.graph.replay()
            return recorded.logits[: len(rows)].clone()

    def read(self, token_ids: Tensor, cache: KVCache) -> Tensor:
        """Hidden states of a prompt's tokens; not recorded, but with the same kernels."""
        with torch.cuda.device(cache.device):
            return read(self._model, token_ids, cache)

    def _record(self, steps: Tensor, kv_dtype: torch.dtype) -> _Recorded:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        # Compiles the kernels and opens the libraries: neither can be recorded.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            compute(self._model, steps, kv_dtype)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            logits = compute(self._model, steps, kv_dtype)
        return _Recorded(graph, steps, logits)


def step_rows(token_ids: Sequence[int], cache: KVCache) -> list[StepRow]:
    """New tokens of one sequence, in the columns behind those in use."""
    layout = cache.layout()
    return [
        StepRow(token, cache.num_tokens + i, cache.length + i, *layout)
        for i, token in enumerate(token_ids)
    ]


def step_tensor(rows: Sequence[StepRow]) -> Tensor:
    """What the kernels of a step read, on the CPU; see `kernels/triton_decode.py`."""
    return torch.tensor([astuple(row) for row in rows], dtype=torch.int64)


def compute(model: ChatGLM2Model, steps: Tensor, kv_dtype: torch.dtype) -> Tensor:
    """One step, kernel by kernel: logits `[R, V]` of `steps` (`kernels/triton_decode.py`)."""
    from glm_rag.engine.kernels import triton_decode as kernels

    shape = attention_shape(model, kv_dtype)
    x, delta = run_blocks(model, steps, shape, partial(kernels.attend, steps, shape=shape))
    norm = model.encoder.final_layernorm
    normed = kernels.add_norm(x, delta, norm.weight, norm.epsilon)
    logits: Tensor = model.output_layer(normed).float()
    return logits


def read(model: ChatGLM2Model, token_ids: Tensor, cache: KVCache) -> Tensor:
    """Hidden states `[1, S, hidden]` of many new tokens `[1, S]`, which are written to the cache.

    As a step of S rows, but with the library's attention.
    """
    shape = attention_shape(model, cache.dtype)
    num_new = token_ids.shape[1]

    def attend(layer: int, queries: Tensor) -> Tensor:
        return attend_cached(queries.unsqueeze(0), cache.layer(layer, num_new), None)[0]

    x, delta = run_blocks(model, prompt_steps(token_ids, cache), shape, attend)
    return (x + delta).unsqueeze(0)


def prompt_steps(token_ids: Tensor, cache: KVCache) -> Tensor:
    """The tensor of a step for consecutive tokens `[1, S]`, made on their device."""
    places = torch.arange(token_ids.shape[1], device=token_ids.device)
    layout = torch.tensor(cache.layout(), device=token_ids.device).expand(len(places), -1)
    columns = [token_ids[0], places + cache.num_tokens, places + cache.length]
    return torch.cat([torch.stack(columns, dim=1), layout], dim=1)


def run_blocks(
    model: ChatGLM2Model,
    steps: Tensor,
    shape: AttentionShape,
    attend: Callable[[int, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """The stream `[R, hidden]` before the last block's output is added, and that output.

    Args:
        attend: layer and rotated queries `[R, heads, D]` to their context `[R, heads * D]`.
    """
    from glm_rag.engine.kernels import triton_decode as kernels

    x: Tensor = model.embedding.word_embeddings(steps[:, 0])  # [R, hidden]
    delta: Tensor | None = None
    for layer, block in enumerate(model.encoder.blocks):
        attention, mlp = block.self_attention, block.mlp
        norm = block.input_layernorm
        qkv = attention.query_key_value(kernels.add_norm(x, delta, norm.weight, norm.epsilon))
        queries = kernels.rotate_store(steps, layer, qkv, model.rotary, shape)
        delta = attention.dense(attend(layer, queries))
        norm = block.post_attention_layernorm
        normed = kernels.add_norm(x, delta, norm.weight, norm.epsilon)
        delta = mlp.dense_4h_to_h(kernels.gate(mlp.dense_h_to_4h(normed)))
    if delta is None:
        raise ValueError("a model without blocks")
    return x, delta


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
    """Relative difference to the logits of the modules, behind one other token: the larger of
    a recorded step's and of reading both."""
    first, second = 1, 2
    ours, theirs, whole = model.new_cache(), model.new_cache(), model.new_cache()
    for cache in (ours, theirs, whole):
        cache.reserve(cache.length + 2)
    for cache in (ours, theirs):
        model(torch.tensor([[first]], device=model.device), cache)
        cache.advance([first])
    hidden = model(torch.tensor([[second]], device=model.device), theirs)
    expected = model.logits(hidden[0])
    decoded = graphs.decode(step_rows([second], ours), ours.dtype)
    hidden = graphs.read(torch.tensor([[first, second]], device=model.device), whole)
    found = torch.cat([decoded, model.logits(hidden[0, -1:])])
    errors = (found - expected).norm(dim=1) / expected.norm()
    return float(errors.max())  # NaN if any is
