"""Keys and values of past tokens, preallocated and grown in steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor

from glm_rag.engine.config import ModelConfig
from glm_rag.engine.memory import require_memory
from glm_rag.errors import ConfigError

GROWTH_STEP = 256


class KVCache:
    """Rotated keys and values of one sequence (or one left-padded batch).

    Storage is one tensor `[layers, 2, B, groups, capacity, head_dim]`, never repeated to all
    query heads. Columns come in order: a P-tuning prefix if there is one, then the tokens.

    Attributes:
        token_ids: ids of the cached tokens; meaningful for a batch of one.
        num_prefix: leading columns of a P-tuning prefix, which hold no token and no position.
        length: columns in use.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        dtype: torch.dtype,
        device: torch.device,
        batch_size: int = 1,
        capacity: int = 0,
        prefix: Tensor | None = None,  # [L, 2, G, P, D]
    ) -> None:
        shape = (config.num_layers, 2, batch_size, config.num_kv_groups)
        self._storage = torch.empty(*shape, 0, config.kv_channels, dtype=dtype, device=device)
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
        return self._storage.nbytes

    @property
    def dtype(self) -> torch.dtype:
        """Of keys and values."""
        return self._storage.dtype

    @property
    def device(self) -> torch.device:
        """Where keys and values live."""
        return self._storage.device

    def fits(self, other: KVCache) -> bool:
        """Whether the two caches could belong to one model: shape, prefix, dtype, device."""
        return self._kind() == other._kind()

    def _kind(self) -> tuple[object, ...]:
        layers, _, batch, groups, _, head_dim = self._storage.shape
        shape = (layers, batch, groups, head_dim, self.num_prefix)
        return (*shape, self.dtype, self.device)

    def reserve(self, columns: int) -> None:
        """Make room for `columns` in all, copying what is there.

        Raises:
            ModelError: there is not enough memory.
        """
        if columns <= self.capacity:
            return
        *head, _, head_dim = self._storage.shape
        wanted = -(-columns // GROWTH_STEP) * GROWTH_STEP
        num_bytes = math.prod(head) * wanted * head_dim * self.dtype.itemsize
        require_memory(num_bytes, self.device, f"a KV cache of {wanted} tokens")
        grown = self._storage.new_empty(*head, wanted, head_dim)
        grown[..., : self.length, :] = self._storage[..., : self.length, :]
        self._storage = grown

    def _start_with(self, prefix: Tensor) -> None:
        self.num_prefix = prefix.shape[3]
        self.reserve(self.num_prefix)
        self._storage[..., : self.num_prefix, :] = prefix.unsqueeze(2)
        self.length = self.num_prefix

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put new columns `[B, G, S, D]` behind the old ones; return all, `[B, G, T, D]` each.

        The columns count only after `advance`, so a forward pass that fails leaves the cache
        as it was. Space must have been reserved.
        """
        end = self.length + keys.shape[2]
        stored = self._storage[layer]  # [2, B, G, C, D]
        stored[0, :, :, self.length : end] = keys
        stored[1, :, :, self.length : end] = values
        return stored[0, :, :, :end], stored[1, :, :, :end]

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

    def common_prefix(self, token_ids: Sequence[int]) -> int:
        """How many leading tokens of `token_ids` are in the cache."""
        pairs = zip(self.token_ids, token_ids, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    # ------------------------------------------------------------ rows of a batch

    def put_row(self, row: int, single: KVCache, end: int) -> None:
        """Copy the tokens of a cache of one sequence into `row`, so that they end at column `end`.

        Columns before them are padding and are set to zero: what is masked must still be finite.
        """
        start = end - single.num_tokens
        own = self._storage[:, :, row]  # [L, 2, G, C, D]
        own[..., self.num_prefix : start, :] = 0
        own[..., start:end, :] = single._storage[:, :, 0, :, single.num_prefix : single.length]

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Keep these rows of the batch, in this order."""
        self._storage = self._storage[:, :, list(rows)]
