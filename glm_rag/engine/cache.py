"""Keys and values of past tokens, preallocated and grown in steps, 8 bit where asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from glm_rag.engine.config import ModelConfig
from glm_rag.engine.memory import require_memory
from glm_rag.errors import ConfigError

GROWTH_STEP = 256

_INT8_MAX = 127


@dataclass(frozen=True, slots=True)
class LayerView:
    """The used columns of one layer, as views of the storage.

    Attributes:
        keys, values: `[B, G, T, D]`. Rows of D values are contiguous; a group is `capacity`
            rows long (see the strides).
        key_scales, value_scales: float32 `[B, G, T]` where keys and values are int8: a row is
            its int8 values times its scale. None otherwise.
    """

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None


class KVCache:
    """Rotated keys and values of one sequence.

    Storage is one tensor `[layers, 2, 1, groups, capacity, head_dim]`, never repeated to all
    query heads. Columns come in order: a P-tuning prefix if there is one, then the tokens.

    With `dtype` int8 each row of head_dim values is kept as int8 with one float32 scale, its
    largest magnitude / 127: an error of at most half a scale per value. Scales are one tensor
    `[layers, 2, 1, groups, capacity]`.

    Attributes:
        token_ids: ids of the cached tokens.
        num_prefix: leading columns of a P-tuning prefix, which hold no token and no position.
        length: columns in use.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        dtype: torch.dtype,
        device: torch.device,
        capacity: int = 0,
        prefix: Tensor | None = None,  # [L, 2, G, P, D]
    ) -> None:
        shape = (config.num_layers, 2, 1, config.num_kv_groups)
        self._storage = torch.empty(*shape, 0, config.kv_channels, dtype=dtype, device=device)
        self._scales: Tensor | None = None
        if dtype == torch.int8:
            self._scales = torch.empty(*shape, 0, dtype=torch.float32, device=device)
        self.token_ids: list[int] = []
        self.num_prefix = self.length = 0
        self.reserve(capacity)
        if prefix is not None:
            self._start_with(prefix)

    @property
    def capacity(self) -> int:
        """Columns that fit without growing."""
        return self._storage.shape[4]

    @property
    def num_tokens(self) -> int:
        """Tokens in the cache; also the position of the next one."""
        return self.length - self.num_prefix

    @property
    def num_bytes(self) -> int:
        """Bytes allocated."""
        return self._storage.nbytes + (0 if self._scales is None else self._scales.nbytes)

    @property
    def bytes_per_column(self) -> int:
        """Bytes of one column, scales included."""
        *head, _, head_dim = self._storage.shape
        scale = 0 if self._scales is None else self._scales.itemsize
        return math.prod(head) * (head_dim * self._storage.itemsize + scale)

    @property
    def dtype(self) -> torch.dtype:
        """Of keys and values as stored."""
        return self._storage.dtype

    @property
    def device(self) -> torch.device:
        """Where keys and values live."""
        return self._storage.device

    def fits(self, other: KVCache) -> bool:
        """Whether the two caches could belong to one model: shape, prefix, dtype, device."""
        return self._kind() == other._kind()

    def _kind(self) -> tuple[object, ...]:
        layers, _, _, groups, _, head_dim = self._storage.shape
        shape = (layers, groups, head_dim, self.num_prefix)
        return (*shape, self.dtype, self.device)

    def reserve(self, columns: int) -> None:
        """Make room for `columns` in all, copying what is there.

        Raises:
            ModelError: there is not enough memory.
        """
        if columns > self.capacity:
            self._resize(-(-columns // GROWTH_STEP) * GROWTH_STEP)

    def _resize(self, capacity: int) -> None:
        num_bytes = capacity * self.bytes_per_column
        require_memory(num_bytes, self.device, f"a KV cache of {capacity} tokens")
        *head, _, head_dim = self._storage.shape
        resized = self._storage.new_empty(*head, capacity, head_dim)
        resized[..., : self.length, :] = self._storage[..., : self.length, :]
        self._storage = resized
        if self._scales is not None:
            scales = self._scales.new_empty(*head, capacity)
            scales[..., : self.length] = self._scales[..., : self.length]
            self._scales = scales

    def _start_with(self, prefix: Tensor) -> None:
        self.num_prefix = prefix.shape[3]
        self.reserve(self.num_prefix)
        for layer, columns in enumerate(prefix.unsqueeze(2)):  # [2, 1, G, P, D]
            self._put(layer, columns, 0)
        self.length = self.num_prefix

    def write(self, layer: int, keys: Tensor, values: Tensor) -> LayerView:
        """Put new columns `[B, G, S, D]` behind the old ones; return all of the layer.

        The columns count only after `advance`, so a forward pass that fails leaves the cache
        as it was. Space must have been reserved.
        """
        self._put(layer, (keys, values), self.length)
        return self._view(layer, self.length + keys.shape[2])

    def layer(self, layer: int, num_new: int = 0) -> LayerView:
        """The columns in use of one layer, and new ones behind them that do not count yet."""
        return self._view(layer, self.length + num_new)

    @property
    def bytes_per_part(self) -> tuple[int, int]:
        """Bytes of the keys of one layer, or of its values, and of their scales (0 without)."""
        parts = 2 * self._storage.shape[0]
        scales = 0 if self._scales is None else self._scales.nbytes
        return self._storage.nbytes // parts, scales // parts

    def layout(self) -> tuple[int, int, int]:
        """Addresses of keys and values and of their scales (0 without), and the capacity: all
        that a kernel needs besides the model's shape."""
        scales = 0 if self._scales is None else self._scales.data_ptr()
        return self._storage.data_ptr(), scales, self.capacity

    def _put(self, layer: int, keys_values: Sequence[Tensor] | Tensor, start: int) -> None:
        for which, new in enumerate(keys_values):  # [B, G, S, D]
            end = start + new.shape[2]
            if self._scales is not None:
                new, scales = quantize_rows(new)
                self._scales[layer, which, :, :, start:end] = scales
            self._storage[layer, which, :, :, start:end] = new

    def _view(self, layer: int, end: int) -> LayerView:
        keys, values = self._storage[layer, ..., :end, :]
        if self._scales is None:
            return LayerView(keys, values)
        key_scales, value_scales = self._scales[layer, ..., :end]
        return LayerView(keys, values, key_scales, value_scales)

    def advance(self, token_ids: Sequence[int]) -> None:
        """Count the columns that `write` put there for these tokens."""
        self.length += len(token_ids)
        self.token_ids.extend(token_ids)

    def truncate(self, num_tokens: int) -> None:
        """Forget all but the first `num_tokens` tokens; memory stays allocated."""
        if not 0 <= num_tokens <= self.num_tokens:
            raise ConfigError(f"cannot keep {num_tokens} of {self.num_tokens} cached tokens")
        self.length = self.num_prefix + num_tokens
        del self.token_ids[num_tokens:]

    def fork(self, num_tokens: int | None = None, *, capacity: int = 0) -> KVCache:
        """An independent copy of the first `num_tokens` tokens, default all.

        Args:
            capacity: room for so many columns; the copy has at least those it needs, and no more.

        Raises:
            ConfigError: the cache holds fewer tokens. ModelError: there is not enough memory.
        """
        copy = object.__new__(KVCache)
        copy._storage, copy._scales = self._storage, self._scales
        copy.token_ids = list(self.token_ids)
        copy.num_prefix, copy.length = self.num_prefix, self.length
        copy.truncate(self.num_tokens if num_tokens is None else num_tokens)
        copy._resize(max(capacity, copy.length))
        return copy

    def common_prefix(self, token_ids: Sequence[int]) -> int:
        """How many leading tokens of `token_ids` are in the cache."""
        pairs = zip(self.token_ids, token_ids, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    # ------------------------------------------------------------ to and from bytes

    def tensors(self) -> dict[str, Tensor]:
        """The columns in use by name, contiguous, on the CPU: what `restore` takes."""
        parts = {"columns": self._storage[..., : self.length, :]}
        if self._scales is not None:
            parts["scales"] = self._scales[..., : self.length]
        return {name: part.contiguous().cpu() for name, part in parts.items()}

    def restore(self, tensors: dict[str, Tensor], token_ids: Sequence[int]) -> None:
        """Replace the contents by saved columns of the same model.

        Raises:
            ConfigError: shapes, dtypes or the number of tokens are not this cache's.
        """
        *head, _, head_dim = self._storage.shape
        length = self.num_prefix + len(token_ids)
        expected = {"columns": ((*head, length, head_dim), self.dtype)}
        if self._scales is not None:
            expected["scales"] = ((*head, length), self._scales.dtype)
        found = {name: (tuple(part.shape), part.dtype) for name, part in tensors.items()}
        if found != expected:
            raise ConfigError("the saved KV cache was made for another model")
        self.reserve(length)
        self._storage[..., :length, :] = tensors["columns"]
        if self._scales is not None:
            self._scales[..., :length] = tensors["scales"]
        self.length, self.token_ids = length, list(token_ids)


def column_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes that a cache of this dtype takes for one token of one sequence."""
    values = config.cache_values_per_token
    scales = values // config.kv_channels * 4 if dtype == torch.int8 else 0
    return values * dtype.itemsize + scales


def quantize_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values and float32 scales of rows `[..., D]`; a row of zeros has scale 0."""
    rows = rows.float()
    scales = rows.abs().amax(-1) / _INT8_MAX
    safe = scales.where(scales > 0, 1).unsqueeze(-1)
    return (rows / safe).round_().to(torch.int8), scales
