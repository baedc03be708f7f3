"""Download a checkpoint folder from Hugging Face or ModelScope: data files only, never code.

First the small files and the index of the weights, then exactly the weights that the index
names, so that a repository with the weights in two formats is not fetched twice. Both clients
resume what an earlier, broken call left in the folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from glm_rag.engine.weight_files import INDEX_FILES, SINGLE_FILES, read_index
from glm_rag.errors import MissingDependencyError, ModelError
from glm_rag.models.registry import ModelSpec

Fetch = Callable[[Path, Sequence[str]], object]
Inspect = Callable[[Path], object]

SMALL_FILES = (
    "config.json",
    "tokenizer.model",
    "tokenizer_config.json",
    *INDEX_FILES,
    "LICENSE",
    "MODEL_LICENSE",
)


def download(spec: ModelSpec, source: str, folder: Path, inspect: Inspect) -> None:
    """Fetch the model into `folder`.

    Args:
        source: `hf` or `modelscope`.
        inspect: called with the folder once config.json is there, before any weights.

    Raises:
        MissingDependencyError: the client library is not installed.
        ModelError: the hub cannot be reached or refuses; the message says how to bring the
            files by hand.
    """
    if source == "modelscope":
        fetch_all(_modelscope(spec), folder, inspect)
    else:
        fetch_all(_hugging_face(spec), folder, inspect)


def fetch_all(fetch: Fetch, folder: Path, inspect: Inspect) -> None:
    """Fetch the small files, then the weights that the index names, else a single file."""
    fetch(folder, SMALL_FILES)
    inspect(folder)
    index = next((folder / name for name in INDEX_FILES if (folder / name).is_file()), None)
    if index is not None:
        fetch(folder, read_index(index))
        return
    for name in SINGLE_FILES:
        fetch(folder, [name])
        if (folder / name).is_file():
            return


def _hugging_face(spec: ModelSpec) -> Fetch:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingDependencyError.for_extra("huggingface_hub", "engine") from error

    def fetch(folder: Path, names: Sequence[str]) -> None:
        try:
            with _quiet_hub():
                snapshot_download(spec.hf_id, local_dir=folder, allow_patterns=list(names))
        # The client's errors come from three HTTP libraries; each means "not downloaded".
        except Exception as error:
            raise ModelError(_unreachable(spec, "Hugging Face", error)) from error

    return fetch


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Switch the client's own progress bars off: the caller shows one."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _modelscope(spec: ModelSpec) -> Fetch:
    try:
        from modelscope import snapshot_download
    except ImportError as error:
        raise MissingDependencyError.for_extra("modelscope", "modelscope") from error

    def fetch(folder: Path, names: Sequence[str]) -> None:
        try:
            snapshot_download(spec.modelscope_id, local_dir=str(folder), allow_patterns=list(names))
        # As above: connection, HTTP and file errors of several libraries.
        except Exception as error:
            raise ModelError(_unreachable(spec, "ModelScope", error)) from error

    return fetch


def _unreachable(spec: ModelSpec, hub: str, error: Exception) -> str:
    reason = next(iter(str(error).splitlines()), "")[:160].rstrip(".")
    other = "modelscope" if hub == "Hugging Face" else "hf"
    mirror = ", set HF_ENDPOINT to a mirror" if hub == "Hugging Face" else ""
    return (
        f"cannot download {spec.name} from {hub} ({type(error).__name__}: {reason}). Run the "
        f"command again to resume, try --from {other}{mirror}, or {by_hand(spec)}"
    )


def by_hand(spec: ModelSpec) -> str:
    """How to bring the folder without a network, as the end of a sentence."""
    return (
        "bring the folder by hand: put config.json, tokenizer.model and the weights "
        "(pytorch_model.bin.index.json with all pytorch_model-*.bin, or one pytorch_model.bin) "
        f"of {spec.hf_id} into one folder, any place on this machine, and run "
        f"`glm-rag model pull {spec.name} --from FOLDER`"
    )
