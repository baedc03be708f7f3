"""Tensors of a ChatGLM2-form checkpoint by name, read in blocks of rows whatever their storage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from glm_rag.engine.config import ModelConfig
from glm_rag.engine.model import ChatGLM2Model
from glm_rag.engine.quantize import LANES, QuantizedTensor, dequantize
from glm_rag.engine.shards import read_shard
from glm_rag.engine.weight_files import find_weight_files
from glm_rag.errors import CheckpointError

_ROOT = "transformer."
_IGNORED = "rotary_pos_emb.inv_freq"
_ROW_SCALE = "_scale"
_BLOCK_BYTES = 32 * 2**20  # of float32 values that are worked on at once


class SourceTensors:
    """The weights of a folder; files are mapped, so little of them is in memory at a time.

    Attributes:
        shapes: of every tensor that the architecture has, as floating point values.
    """

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        """Open the weight files and check that the tensors are those of the architecture.

        Raises:
            CheckpointError: a file is damaged; a tensor is missing, unknown or of a wrong shape.
        """
        self._config, self._folder = config, folder
        with torch.device("meta"):
            model = ChatGLM2Model(replace(config, quantization=None))
        self.shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        self._stored: dict[str, Tensor] = {}
        for path in find_weight_files(folder):
            for name, value in read_shard(path).items():
                self._stored[name.removeprefix(_ROOT)] = value
        self._stored.pop(_IGNORED, None)
        self._check()

    @property
    def is_quantized(self) -> bool:
        """Whether matrices are stored in few bits."""
        return bool(self._config.quantization or self._config.quantization_bit)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the stored output matrix; float16 for quantized checkpoints, as their scales."""
        stored = self._stored.get("output_layer.weight")
        if self.is_quantized or stored is None:
            return torch.float16
        return stored.dtype

    def blocks(self, name: str, start: int, stop: int) -> Iterator[Tensor]:
        """Rows `start` to `stop` of a tensor in their order, floating point, a block at a time."""
        row_bytes = 4 * (self.shapes[name][1] if len(self.shapes[name]) > 1 else 1)
        step = max(LANES, _BLOCK_BYTES // row_bytes // LANES * LANES)
        for first in range(start, stop, step):
            yield self._rows(name, first, min(first + step, stop))

    def _rows(self, name: str, start: int, stop: int) -> Tensor:
        stem = name.removesuffix(".weight")
        if (packed := self._stored.get(f"{stem}.packed")) is not None:
            return self._unpacked(name, packed, self._stored[f"{stem}.scales"], start, stop)
        value = self._stored[name][start:stop]
        if value.is_floating_point():
            return value
        scale = self._stored[name + _ROW_SCALE][start:stop]
        if self._config.quantization_bit == 4:
            value = torch.stack([value >> 4, (value << 4) >> 4], dim=-1).flatten(1)
        return value.float() * scale.float().unsqueeze(1)

    def _unpacked(self, name: str, packed: Tensor, scales: Tensor, start: int, stop: int) -> Tensor:
        """Rows of a matrix in this project's layout, which has them in blocks of 16."""
        first, last = start // LANES, -(-stop // LANES)
        columns = self.shapes[name][1]
        group = columns // scales.shape[1]
        bits = packed.shape[1] * 32 // columns
        rows = (last - first) * LANES
        part = QuantizedTensor(packed[first:last], scales[first:last], rows, columns, bits, group)
        return dequantize(part)[start - first * LANES : stop - first * LANES]

    def _check(self) -> None:
        expected = self._expected()
        unknown = sorted(set(self._stored) - set(expected))
        missing = [name for name in expected if name not in self._stored]
        for problem, names in (("lacks", missing), ("holds the unknown tensor", unknown)):
            if names:
                raise CheckpointError(
                    f"the checkpoint in {self._folder} {problem} {_ROOT}{names[0]}: fetch it again"
                )
        for name, shape in expected.items():
            found = tuple(self._stored[name].shape)
            if found != shape:
                raise CheckpointError(
                    f"{self._folder}: {_ROOT}{name} has shape {list(found)}, config.json asks "
                    f"for {list(shape)}"
                )

    def _expected(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes as this kind of checkpoint stores them."""
        if self._config.quantization:
            with torch.device("meta"):
                model = ChatGLM2Model(self._config)
            return {name: tuple(value.shape) for name, value in model.state_dict().items()}
        expected = dict(self.shapes)
        bits = self._config.quantization_bit
        for name, shape in self.shapes.items():
            if bits and name.startswith("encoder.layers.") and len(shape) > 1:
                expected[name] = (shape[0], shape[1] * bits // 8)
                expected[name + _ROW_SCALE] = shape[:1]
        return expected
