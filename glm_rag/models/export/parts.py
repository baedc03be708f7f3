"""A tensor of an export as rows of a source tensor, and its bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from glm_rag.errors import ModelError
from glm_rag.models.export.source_tensors import SourceTensors


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor of the export: rows `start` to `stop` of a source tensor.

    Attributes:
        columns: of a matrix; 0 for a vector.
    """

    name: str
    source: str
    start: int
    stop: int
    columns: int = 0

    @property
    def shape(self) -> list[int]:
        """`[rows, columns]` or `[rows]`."""
        rows = self.stop - self.start
        return [rows, self.columns] if self.columns else [rows]

    @property
    def num_values(self) -> int:
        """Rows times columns."""
        return (self.stop - self.start) * (self.columns or 1)


def part_bytes(source: SourceTensors, part: Part, dtype: torch.dtype) -> Iterator[memoryview]:
    """The values of a tensor as they stand in a file, some MB at a time.

    Raises:
        ModelError: a value is too large for float16.
    """
    for rows in source.blocks(part.source, part.start, part.stop):
        cast = rows.to(dtype).contiguous()
        if dtype == torch.float16 and not bool(torch.isfinite(cast).all()):
            raise ModelError(
                f"{part.name} holds values that float16 cannot: use --dtype bfloat16 or float32"
            )
        yield cast.view(torch.uint8).numpy().data.cast("B")
