"""Which files of a folder hold its weights. Looks at names and indexes; needs no torch."""

from __future__ import annotations

import json
from pathlib import Path

from glm_rag.errors import CheckpointError

INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")


def find_weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder, in order; the first complete kind where there are several.

    Raises:
        CheckpointError: there are none, or an index names a file that is missing.
    """
    indexes = [folder / name for name in INDEX_FILES if (folder / name).is_file()]
    kinds = [[folder / shard for shard in read_index(path)] for path in indexes]
    kinds += [[folder / name] for name in SINGLE_FILES if (folder / name).is_file()]
    for files in kinds:
        if all(file.is_file() for file in files):
            return files
    if not kinds:
        raise CheckpointError(
            f"{folder} has no weights: expected model.safetensors or pytorch_model.bin, "
            "or their shards with an index"
        )
    missing = [file.name for file in kinds[0] if not file.is_file()]
    raise CheckpointError(
        f"{folder} misses {len(missing)} of {len(kinds[0])} weight files, first {missing[0]}: "
        "fetch the model again"
    )


def read_index(path: Path) -> list[str]:
    """Names of the weight files that an index lists, sorted.

    Raises:
        CheckpointError: it is no index, or names something outside its own folder.
    """
    try:
        shards = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is no weight index: fetch the model again") from error
    for shard in shards:
        if not isinstance(shard, str) or not _is_weight_file(shard):
            raise CheckpointError(f"{path} names {shard!r}, which is no weight file of its folder")
    if not shards:
        raise CheckpointError(f"{path} lists no weights: fetch the model again")
    return sorted(shards)


def _is_weight_file(name: str) -> bool:
    plain = Path(name).name == name and "\\" not in name
    return plain and Path(name).suffix in {".bin", ".safetensors"}
