"""llama.cpp's own benchmark: found, or built once from the source package on PyPI."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.child import run_child

RELEASE = "llama-cpp-python==0.3.36"  # llama.cpp lies in its vendor folder
_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",  # every instruction this processor has
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_BUILD_COMMON=ON",
    "-DLLAMA_BUILD_TOOLS=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
)


@dataclass(frozen=True, slots=True)
class LlamaFigures:
    """Tokens per second of one turn, and the most resident memory in bytes."""

    prefill: float
    decode: dict[int, float]  # by tokens of context
    peak_rss: int


def find_llama_bench(cache: Path, given: Path | None, jobs: int) -> Path:
    """`given`, else what is on PATH, else what was or is now built in `cache`.

    Raises:
        SystemExit: it has to be built, and cmake or a compiler is missing.
    """
    if given is not None:
        return given
    on_path = shutil.which("llama-bench")
    return Path(on_path) if on_path else _build(cache / RELEASE.replace("==", "-"), jobs)


def _build(folder: Path, jobs: int) -> Path:
    program = folder / "build" / "bin" / "llama-bench"
    if program.is_file():
        return program
    if not shutil.which("cmake"):
        raise SystemExit("llama-bench is built with cmake: install it, or pass --llama-bench PATH")
    print(f"building llama-bench of {RELEASE}: some minutes", file=sys.stderr, flush=True)
    source = _source(folder)
    build = folder / "build"
    _run(["cmake", "-S", str(source), "-B", str(build), *_OPTIONS])
    _run(["cmake", "--build", str(build), "--target", "llama-bench", "-j", str(jobs)])
    return program


def _source(folder: Path) -> Path:
    """The unpacked vendor folder of the source package."""
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
    _run([*pip, "--dest", str(folder), RELEASE])
    [archive] = folder.glob("*.tar.gz")
    with tarfile.open(archive) as package:
        package.extractall(folder, filter="data")
    [source] = folder.glob("*/vendor/llama.cpp")
    return source


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)


def measure(
    program: Path,
    model: Path,
    *,
    threads: int,
    prompt: int,
    contexts: Sequence[int],
    num_tokens: int,
) -> LlamaFigures:
    """One turn: reading `prompt` tokens, writing `num_tokens` behind each context.

    Weights are repacked for this processor when they are loaded, which is llama.cpp's default
    and its fastest way.
    """
    command = [str(program), "-m", str(model), "-t", str(threads), "-o", "json", "-r", "2"]
    peaks, rows = [], []
    for number, context in enumerate(contexts):  # llama-bench would also read at every depth
        to_read = prompt if number == 0 else 0
        sizes = ["-p", str(to_read), "-n", str(num_tokens), "-d", str(context)]
        done = run_child([*command, *sizes])
        peaks.append(done.peak_rss)
        rows += json.loads(done.stdout)
    return LlamaFigures(
        prefill=next(row["avg_ts"] for row in rows if row["n_prompt"]),
        decode={row["n_depth"]: row["avg_ts"] for row in rows if row["n_gen"]},
        peak_rss=max(peaks),
    )


def build_of(program: Path, model: Path) -> str:
    """Commit llama-bench was built from, as it says itself."""
    command = [str(program), "-m", str(model), "-p", "1", "-n", "0", "-r", "1", "-o", "json"]
    rows: list[dict[str, Any]] = json.loads(run_child(command).stdout)
    return str(rows[0]["build_commit"])
