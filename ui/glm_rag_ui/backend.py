"""The seam between the page and glm-rag: everything the page needs done, one function each.

The page calls these through the module, so a test replaces them one by one. Heavy parts are
imported on first use: the page's frame stands before torch is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING

from glm_rag.errors import MissingDependencyError, ModelNotFoundError
from glm_rag.settings import Settings
from glm_rag_ui import choices

if TYPE_CHECKING:
    from glm_rag.assistant import Assistant
    from glm_rag.diagnosis import Finding
    from glm_rag.knowledge.base import KnowledgeBase
    from glm_rag.machine import Machine

SMALL_MODEL = "smollm2-135m"


def has_model(settings: Settings) -> bool:
    """Whether the model of these settings is on this machine, or at a server."""
    from glm_rag.models.loading import resolve

    if choices.server(settings):
        return True
    try:
        resolve(settings.model.name, settings.models_dir)
    except ModelNotFoundError:
        return False
    return True


def reads(settings: Settings, question: str) -> bool:
    """Whether the model of these settings can answer in the language of a question."""
    from glm_rag.models.registry import reads as model_reads
    from glm_rag.text import detect_language

    return model_reads(choices.model_name(settings), detect_language(question))


def pull_model(
    settings: Settings, name: str, source: str = "auto"
) -> Iterator[tuple[str, int, int | None]]:
    """Fetch a model into the data folder.

    The work goes on in a thread of its own, so that a visitor who leaves does not break it off.

    Yields:
        The present step (`downloading`, `converting`), what is done of it, and its size if known.

    Raises:
        GlmRagError: as `glm_rag.models.pull.pull`.
    """
    from glm_rag.models.pull import pull

    steps: SimpleQueue[tuple[str, int, int | None] | None] = SimpleQueue()

    def work() -> None:
        try:
            pull(name, models_dir=settings.models_dir, source=source, on_progress=report)
        finally:
            steps.put(None)

    def report(step: str, done: int, total: int | None) -> None:
        steps.put((step, done, total))

    pool = ThreadPoolExecutor(1, thread_name_prefix="pull")
    future = pool.submit(work)
    pool.shutdown(wait=False)
    yield from iter(steps.get, None)
    future.result()


def has_modelscope() -> bool:
    """Whether the package that fetches from ModelScope is installed."""
    from importlib.util import find_spec

    return find_spec("modelscope") is not None


def accept_license(settings: Settings, name: str) -> None:
    """Remember a visitor's yes to the licence of a model."""
    from glm_rag.models.registry import get_spec
    from glm_rag.models.storage import remember_license

    remember_license(get_spec(name).license, settings.models_dir)


def known_models() -> list[str]:
    """Names of the models that can be fetched."""
    from glm_rag.models.registry import MODELS

    return list(MODELS)


def installed_models(settings: Settings) -> list[str]:
    """Names of the models in the data folder, sorted: fetched, linked and converted ones."""
    folder = settings.models_dir
    if not folder.is_dir():
        return []
    visible = (entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return sorted(entry.name for entry in visible if (entry / "config.json").is_file())


def free_disk(settings: Settings) -> int:
    """Bytes that are free where the data folder lies."""
    from glm_rag.machine import free_disk as free_at

    return free_at(settings.home)


def check_settings(settings: Settings) -> None:
    """Find out whether settings go together, without loading anything large.

    Raises:
        GlmRagError: they do not; the message says what to do. A model that is not here yet is
            no error.
    """
    from glm_rag.build import build_llm, build_reranker
    from glm_rag.engine.config import ModelConfig
    from glm_rag.models.loading import resolve

    build_llm(settings)
    build_reranker(settings)
    if choices.server(settings):
        return
    try:
        folder = resolve(settings.model.name, settings.models_dir)
    except ModelNotFoundError:
        return
    ModelConfig.from_folder(folder).quantized(settings.model.quantize)


def machine(settings: Settings) -> tuple[Machine, list[Finding]]:
    """What is used of the machine, and what `glm-rag doctor` says about it.

    Raises:
        GlmRagError: the engine is not installed, or its device is not there.
    """
    from glm_rag.diagnosis import diagnose
    from glm_rag.machine import look

    try:
        return look(settings), list(diagnose(settings))
    except ImportError as error:
        raise MissingDependencyError.for_extra(error.name or "torch", "engine") from error


def list_knowledge_bases(settings: Settings) -> list[str]:
    """Names of the knowledge bases in the data folder."""
    from glm_rag.build import list_knowledge_bases as list_in

    return list(list_in(settings))


def identity(settings: Settings, name: str) -> int:
    """A number that changes when a knowledge base is deleted and made anew.

    Raises:
        KnowledgeBaseNotFoundError: there is none of that name.
    """
    from glm_rag.stores import identity_of

    return identity_of(settings, name)


def open_knowledge_base(settings: Settings, name: str, *, create: bool = False) -> KnowledgeBase:
    """Open a knowledge base."""
    from glm_rag.build import open_knowledge_base as open_in

    return open_in(settings, name, create=create)


def build_assistant(settings: Settings, kb: KnowledgeBase) -> Assistant:
    """An assistant over an open knowledge base, whose answers are written together with others."""
    from glm_rag.build import build_assistant as build

    return build(settings, kb, max_running=settings.ui.max_running)
