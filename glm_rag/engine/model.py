"""The ChatGLM2 network. Module names are the checkpoint's names without `transformer.`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu

from glm_rag.engine.attention import attend_cached
from glm_rag.engine.cache import KVCache
from glm_rag.engine.config import ModelConfig
from glm_rag.engine.linear import make_embedding, make_linear, make_output
from glm_rag.engine.rotary import rotate

if TYPE_CHECKING:
    from glm_rag.engine.decode_graph import DecodeGraphs
    from glm_rag.engine.kernels.backend import Backend
    from glm_rag.engine.native_blocks import NativeBlocks


class RMSNorm(nn.Module):
    """Root mean square norm in float32 (arXiv 1910.07467); only the result is cast back."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size), requires_grad=False)
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """`[..., size]` to the same shape and dtype."""
        normed = rms_norm(x.float(), self.weight.shape, self.weight.float(), self.epsilon)
        return normed.to(x.dtype)


class SelfAttention(nn.Module):
    """Multi-query attention over a cache, with one fused projection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        heads, groups = config.num_attention_heads, config.num_kv_groups
        self.head_dim = config.kv_channels
        self.split = (heads, groups, groups)
        hidden, kind = config.hidden_size, config.quantization
        self.query_key_value = make_linear(hidden, config.qkv_size, kind, bias=config.add_qkv_bias)
        self.dense = make_linear(heads * config.kv_channels, hidden, kind)

    def forward(
        self, x: Tensor, cos_sin: Tensor, cache: KVCache, layer: int, mask: Tensor | None
    ) -> Tensor:
        """`[B, S, hidden]` to the same shape; writes keys and values of `layer` to the cache."""
        qkv = self.query_key_value(x).unflatten(-1, (-1, self.head_dim))  # [B, S, H+2G, D]
        queries, keys, values = qkv.split(self.split, dim=2)
        queries, keys = rotate(queries, cos_sin), rotate(keys, cos_sin)
        view = cache.write(layer, keys.transpose(1, 2), values.transpose(1, 2))
        context: Tensor = self.dense(attend_cached(queries, view, mask))
        return context


class MLP(nn.Module):
    """SwiGLU (arXiv 2002.05202): the first half of the fused projection is the gate."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, inner, kind = config.hidden_size, config.ffn_hidden_size, config.quantization
        self.dense_h_to_4h = make_linear(hidden, 2 * inner, kind)
        self.dense_4h_to_h = make_linear(inner, hidden, kind)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, S, hidden]` to the same shape."""
        gate, up = self.dense_h_to_4h(x).chunk(2, dim=-1)
        result: Tensor = self.dense_4h_to_h(silu(gate) * up)
        return result


class Block(nn.Module):
    """Pre-norm attention and MLP, each added to the un-normed stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.layernorm_epsilon)
        self.self_attention = SelfAttention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.layernorm_epsilon)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, cos_sin: Tensor, cache: KVCache, layer: int, mask: Tensor | None
    ) -> Tensor:
        """`[B, S, hidden]` to the same shape."""
        x = x + self.self_attention(self.input_layernorm(x), cos_sin, cache, layer, mask)
        result: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return result


class Embedding(nn.Module):
    """Rows of the vocabulary."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.word_embeddings = make_embedding(
            config.padded_vocab_size, config.hidden_size, config.quantization
        )


class Encoder(nn.Module):
    """All blocks and the final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.final_layernorm = RMSNorm(config.hidden_size, config.layernorm_epsilon)

    @property
    def blocks(self) -> Iterator[Block]:
        """The layers by their type."""
        return (block for block in self.layers if isinstance(block, Block))


class ChatGLM2Model(nn.Module):
    """Token ids to hidden states to logits. Keeps no state between calls but its weights.

    Attributes:
        rotary: cosines and sines, `[seq_length, R / 2, 2]`.
        prefix: keys and values of a P-tuning prefix, `[L, 2, G, P, D]`, or None.
        kv_dtype: of new caches, if not that of the model; int8 keeps them in 8 bit.
        backend: what multiplies quantized weights; None without any.
        native: the compiled blocks, where they serve this model.
        graphs: recorded decoding steps, where a CUDA device has them.
    """

    rotary: Tensor
    prefix: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.kv_dtype: torch.dtype | None = None
        self.backend: Backend | None = None
        self.native: NativeBlocks | None = None
        self.graphs: DecodeGraphs | None = None
        self.embedding = Embedding(config)
        self.encoder = Encoder(config)
        self.output_layer = make_output(
            config.hidden_size, config.padded_vocab_size, config.quantization
        )
        self.register_buffer("rotary", None, persistent=False)
        self.register_buffer("prefix", None, persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Of activations, and of weights that are not quantized."""
        return self.encoder.final_layernorm.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.encoder.final_layernorm.weight.device

    def new_cache(self, *, batch_size: int = 1, capacity: int = 0) -> KVCache:
        """An empty cache for this model, starting with its prefix if it has one."""
        return KVCache(
            self.config,
            dtype=self.kv_dtype or self.dtype,
            device=self.device,
            batch_size=batch_size,
            capacity=capacity,
            prefix=self.prefix,
        )

    def forward(
        self,
        token_ids: Tensor,  # [B, S]
        cache: KVCache,
        *,
        positions: Tensor | None = None,  # [B or 1, S]
        real: Tensor | None = None,  # [B, tokens so far + S]
    ) -> Tensor:
        """Hidden states `[B, S, hidden]` of S new tokens behind what the cache holds.

        The caller then calls `cache.advance`.

        Args:
            positions: default: consecutive, from the number of cached tokens.
            real: False marks left padding among cached and new tokens; None: no padding.
        """
        num_new = token_ids.shape[1]
        cache.reserve(cache.length + num_new)
        if self.native is not None and real is None and positions is None and len(token_ids) == 1:
            start = cache.num_tokens
            hidden: Tensor = self.embedding.word_embeddings(token_ids)
            return self.native.forward(hidden, self.rotary[start : start + num_new], cache)
        if self.graphs is not None and real is None and positions is None and len(token_ids) == 1:
            return self.graphs.read(token_ids, cache)
        if positions is None:
            start = cache.num_tokens
            positions = torch.arange(start, start + num_new, device=self.device).unsqueeze(0)
        cos_sin = self.rotary[positions]  # [B or 1, S, R/2, 2]
        mask = _visible(num_new, cache, real)
        x: Tensor = self.embedding.word_embeddings(token_ids)
        for layer, block in enumerate(self.encoder.layers):
            x = block(x, cos_sin, cache, layer, mask)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits `[..., padded_vocab_size]` of hidden states."""
        normed = self.encoder.final_layernorm(hidden)
        result: Tensor = self.output_layer(normed).float()
        return result


def _visible(num_new: int, cache: KVCache, real: Tensor | None) -> Tensor | None:
    """What each new token may see, `[B or 1, S, T]`; None where attention needs no mask.

    Rows of padding see everything: they are never read, and an empty row would become NaN.
    """
    maskless = num_new == 1 or cache.length == 0 or cache.device.type == "cuda"
    if real is None and maskless:
        return None
    total = cache.length + num_new
    ones = torch.ones(1, num_new, total, dtype=torch.bool, device=cache.device)
    causal = ones.tril(cache.length)
    if real is None:
        return causal
    prefix = real.new_ones(len(real), cache.num_prefix)
    columns = torch.cat([prefix, real], dim=1)  # [B, T]
    return causal & columns.unsqueeze(1) | ~real[:, -num_new:].unsqueeze(2)
