"""All blocks of a quantized model through the native library, one call per block."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from glm_rag.engine.cache import KVCache
from glm_rag.engine.config import ModelConfig
from glm_rag.engine.kernels import native
from glm_rag.engine.linear import QuantizedLinear
from glm_rag.engine.quantize import LANES

_CACHE_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


class NativeBlocks:
    """Addresses of the weights of a model, and the calls over them.

    A block is one call, so that the threads stay awake from its first product to its last and
    activations are quantized once for each product that reads them.
    """

    def __init__(self, library: native.Native, config: ModelConfig, layers: nn.ModuleList) -> None:
        self._library = library
        self._blocks = [_describe(config, layer) for layer in layers]
        # Moving the model makes new tensors; the old addresses must stay valid all the same.
        self._kept = [*layers.parameters(), *layers.buffers()]

    @staticmethod
    def serves(config: ModelConfig, dtype: torch.dtype, layers: nn.ModuleList) -> bool:
        """Whether shapes and types are those that the native code was written for."""
        matrices = [module for module in layers.modules() if isinstance(module, QuantizedLinear)]
        return (
            dtype == torch.float32
            and config.kv_channels % LANES == 0
            and config.quantization is not None
            and all(matrix.is_whole for matrix in matrices)
        )

    def forward(
        self, hidden: Tensor, cos_sin: Tensor, shares: Sequence[tuple[int, KVCache]]
    ) -> Tensor:
        """Run new tokens of some sequences through all blocks; the caller then calls
        `cache.advance`.

        Args:
            hidden: embeddings float32 `[1, R, hidden]`; updated in place and returned.
            cos_sin: rows of the rotary table `[R, rotary_dim / 2, 2]`.
            shares: how many of the tokens belong to which sequence, in order; each cache has
                room for them.
        """
        hidden = hidden.contiguous()
        cos_sin = cos_sin.float().contiguous()
        views = _views(shares, len(self._blocks))
        for block, caches in zip(self._blocks, views, strict=True):
            self._library.block(
                ctypes.byref(block),
                caches.ctypes.data,
                len(shares),
                cos_sin.data_ptr(),
                hidden.data_ptr(),
            )
        return hidden


def _views(shares: Sequence[tuple[int, KVCache]], num_layers: int) -> np.ndarray:
    """`CacheView`s of every layer and sequence, `[L, sequences]`; made at once, which is fast."""
    views = np.empty((num_layers, len(shares)), dtype=native.CacheView)
    layers = np.arange(num_layers, dtype=np.uint64)
    for at, (tokens, cache) in enumerate(shares):
        own = views[:, at]
        storage, scales, capacity = cache.layout()
        step, scale_step = (np.uint64(size) for size in cache.bytes_per_part)
        own["keys"] = np.uint64(storage) + layers * step * 2
        own["values"] = own["keys"] + step
        own["key_scales"] = np.uint64(scales) + layers * scale_step * 2
        own["value_scales"] = own["key_scales"] + scale_step
        own["kind"], own["capacity"] = _CACHE_KINDS[cache.dtype], capacity
        own["length"], own["tokens"] = cache.length + tokens, tokens
    return views


def _describe(config: ModelConfig, layer: Any) -> native.Block:
    attention, mlp = layer.self_attention, layer.mlp
    return native.Block(
        native.describe(attention.query_key_value.weight, attention.query_key_value.bias),
        native.describe(attention.dense.weight),
        native.describe(mlp.dense_h_to_4h.weight),
        native.describe(mlp.dense_4h_to_h.weight),
        layer.input_layernorm.weight.data_ptr(),
        layer.post_attention_layernorm.weight.data_ptr(),
        config.layernorm_epsilon,
        config.num_attention_heads,
        config.num_kv_groups,
        config.kv_channels,
        config.rotary_dim,
    )
