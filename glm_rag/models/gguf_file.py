"""Read a GGUF file: its metadata, and its tensors as float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from glm_rag.errors import CheckpointError, MissingDependencyError

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class GgufFile:
    """An open GGUF file; tensors are mapped from disk and dequantized when asked for."""

    path: Path
    meta: Mapping[str, Any]
    tensors: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path) -> GgufFile:
        """Map the file.

        Raises:
            CheckpointError: it cannot be read or is no GGUF file.
            MissingDependencyError: the gguf package is not installed.
        """
        try:
            from gguf import GGUFReader
        except ImportError as error:
            raise MissingDependencyError.for_extra("gguf", "engine") from error
        try:
            reader = GGUFReader(path)
            meta = {name: field.contents() for name, field in reader.fields.items()}
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
        except (ValueError, IndexError, KeyError) as error:
            raise CheckpointError(f"{path} is damaged or no GGUF file: fetch it again") from error
        return cls(path, meta, {tensor.name: tensor for tensor in reader.tensors})

    def __getitem__(self, name: str) -> Array:
        """The tensor `name`.weight, [out, in] or [size].

        Raises:
            CheckpointError: there is none.
        """
        from gguf import dequantize

        tensor = self.tensors.get(f"{name}.weight")
        if tensor is None:
            raise CheckpointError(f"{self.path} misses the tensor {name}.weight: fetch it again")
        return np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)

    def key(self, name: str) -> Any:
        """The metadata value `name`.

        Raises:
            CheckpointError: there is none.
        """
        if name not in self.meta:
            raise CheckpointError(f"{self.path} lacks the key {name}: fetch it again")
        return self.meta[name]
