"""The ChatGLM2 network. Module names are the checkpoint's names without `transformer.`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring rows of a pass that are new tokens of one sequence.

    Attributes:
        mask: which columns each may see, `[1, S, T]`; None where attention needs no mask.
    """

    rows: slice
    cache: KVCache
    mask: Tensor | None


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
    """Multi-query attention over the caches of some sequences, with one fused projection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        heads, groups = config.num_attention_heads, config.num_kv_groups
        self.head_dim = config.kv_channels
        self.split = (heads, groups, groups)
        hidden, kind = config.hidden_size, config.quantization
        self.query_key_value = make_linear(hidden, config.qkv_size, kind, bias=config.add_qkv_bias)
        self.dense = make_linear(heads * config.kv_channels, hidden, kind)

    def forward(self, x: Tensor, cos_sin: Tensor, parts: Sequence[Part], layer: int) -> Tensor:
        """`[1, R, hidden]` to the same shape; writes keys and values of `layer` to the caches."""
        qkv = self.query_key_value(x).unflatten(-1, (-1, self.head_dim))  # [1, R, H+2G, D]
        queries, keys, values = qkv.split(self.split, dim=2)
        queries, keys = rotate(queries, cos_sin), rotate(keys, cos_sin)
        keys, values = keys.transpose(1, 2), values.transpose(1, 2)  # [1, G, R, D]
        contexts = []
        for part in parts:
            rows = part.rows
            view = part.cache.write(layer, keys[:, :, rows], values[:, :, rows])
            contexts.append(attend_cached(queries[:, rows], view, part.mask))
        together = contexts[0] if len(contexts) == 1 else torch.cat(contexts, dim=1)
        context: Tensor = self.dense(together)
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

    def forward(self, x: Tensor, cos_sin: Tensor, parts: Sequence[Part], layer: int) -> Tensor:
        """`[1, R, hidden]` to the same shape."""
        x = x + self.self_attention(self.input_layernorm(x), cos_sin, parts, layer)
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

    def new_cache(self, *, capacity: int = 0) -> KVCache:
        """An empty cache for this model, starting with its prefix if it has one."""
        return KVCache(
            self.config,
            dtype=self.kv_dtype or self.dtype,
            device=self.device,
            capacity=capacity,
            prefix=self.prefix,
        )

    def forward(
        self,
        token_ids: Tensor,  # [1, S]
        cache: KVCache,
        *,
        positions: Tensor | None = None,  # [1, S]
    ) -> Tensor:
        """Hidden states `[1, S, hidden]` of S new tokens behind what the cache holds.

        The caller then calls `cache.advance`.

        Args:
            positions: default: consecutive, from the number of cached tokens.
        """
        num_new = token_ids.shape[1]
        if self.graphs is not None and positions is None:
            cache.reserve(cache.length + num_new)
            return self.graphs.read(token_ids, cache)
        return self.read_together(token_ids, [(num_new, cache)], positions=positions)

    def read_together(
        self,
        token_ids: Tensor,  # [1, R]
        shares: Sequence[tuple[int, KVCache]],
        *,
        positions: Tensor | None = None,  # [1, R]
    ) -> Tensor:
        """Hidden states `[1, R, hidden]` of new tokens of several sequences, in one pass.

        Args:
            shares: how many of the tokens belong to which sequence, in order.
        """
        for num_new, cache in shares:
            cache.reserve(cache.length + num_new)
        places = _next_positions(shares, self.device) if positions is None else positions
        cos_sin = self.rotary[places]  # [1, R, R/2, 2]
        x: Tensor = self.embedding.word_embeddings(token_ids)
        if self.native is not None and positions is None:
            return self.native.forward(x, cos_sin[0], shares)
        parts = list(_parts(shares))
        for layer, block in enumerate(self.encoder.layers):
            x = block(x, cos_sin, parts, layer)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits `[..., padded_vocab_size]` of hidden states."""
        normed = self.encoder.final_layernorm(hidden)
        result: Tensor = self.output_layer(normed).float()
        return result


def _next_positions(shares: Sequence[tuple[int, KVCache]], device: torch.device) -> Tensor:
    """Positions `[1, R]` of the tokens behind what each cache holds."""
    places = [
        place
        for num_new, cache in shares
        for place in range(cache.num_tokens, cache.num_tokens + num_new)
    ]
    return torch.tensor([places], device=device)


def _parts(shares: Sequence[tuple[int, KVCache]]) -> Iterator[Part]:
    start = 0
    for num_new, cache in shares:
        yield Part(slice(start, start + num_new), cache, _visible(num_new, cache))
        start += num_new


def _visible(num_new: int, cache: KVCache) -> Tensor | None:
    """What each new token may see, `[1, S, T]`; None where attention needs no mask."""
    if num_new == 1 or cache.length == 0 or cache.device.type == "cuda":
        return None
    total = cache.length + num_new
    ones = torch.ones(1, num_new, total, dtype=torch.bool, device=cache.device)
    return ones.tril(cache.length)
