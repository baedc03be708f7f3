"""What every route shares: settings, keys, the queue, figures, and what is open of models."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from glm_rag.build import build_embeddings, build_llm, llm_name
from glm_rag.errors import KnowledgeBaseNotFoundError, ModelError
from glm_rag.local_model import LocalModel
from glm_rag.settings import LlmSettings, Settings
from glm_rag.waiting import FairLine
from glm_rag_server.errors import ApiError
from glm_rag_server.hiding import Hiding
from glm_rag_server.keys import FILE_NAME, KeyStore
from glm_rag_server.memory import Memory
from glm_rag_server.metrics import Metrics
from glm_rag_server.opened import OpenBases
from glm_rag_server.outside import Outside
from glm_rag_server.telemetry import Tracer

if TYPE_CHECKING:
    from glm_rag.assistant import Assistant
    from glm_rag.embeddings import TokenEmbeddings
    from glm_rag.knowledge.base import KnowledgeBase
    from glm_rag.retrieval.retriever import HybridRetriever

KB_PREFIX = "kb:"
_EMBEDDING_PLACES = 2


class Models:
    """Models and knowledge bases by the names that clients use. Opened on first use, then kept.

    Any thread may use it; opening takes time, so coroutines do it in a thread.

    Attributes:
        loading: set while the model is being loaded at the server's start.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._model_lock = threading.Lock()
        self.loading = threading.Event()
        self._llms: dict[str, Any] = {}
        self._embeddings: TokenEmbeddings | None = None
        self._bases = OpenBases(settings)
        others = {public_name(other): other for other in settings.server.models}
        self._others = {name: other for name, other in others.items() if name != self.name}

    @property
    def name(self) -> str:
        """What clients call the model of the settings; of a folder its name alone."""
        return public_name(llm_name(self.settings))

    @property
    def names(self) -> list[str]:
        """What clients may call language models; the first is the settings' own."""
        return [self.name, *self._others]

    def check(self, name: str) -> str:
        """The name, if it is one of `names`.

        Raises:
            ApiError: 404, it is none.
        """
        if name in self.names:
            return name
        known = ", ".join(self.names)
        message = f"no such model: there is {known}, and kb:NAME for a knowledge base"
        raise ApiError(404, message, param="model", code="model_not_found")

    def llm(self, name: str | None = None) -> Any:
        """A chat model, by default the settings' own. Cheap: weights load on first use."""
        name = name or self.name
        with self._model_lock:
            if name not in self._llms:
                settings = self.settings
                if name in self._others:
                    other = settings.model.model_copy(update={"name": self._others[name]})
                    # Of this machine, also where the settings' own is behind a server.
                    here = {"model": other, "llm": LlmSettings()}
                    settings = settings.model_copy(update=here)
                self._llms[name] = build_llm(settings, max_running=settings.server.max_running)
            return self._llms[name]

    def check_model(self) -> None:
        """Make sure that the settings' model can answer.

        Raises:
            GlmRagError: its files are not on this machine, it is still being loaded, or the server
                that has it does not answer.
        """
        if self.settings.llm.backend == "openai":
            self.llm().server.facts()
            return
        from glm_rag.models.loading import resolve

        resolve(self.settings.model.name, self.settings.models_dir)
        if self.loading.is_set():
            raise ModelError("the model is being loaded")

    def context_window(self, name: str) -> int:
        """Tokens of prompt and answer together. Loads no weights; may ask a server.

        Raises:
            GlmRagError: it is not known, as `check_model` says.
        """
        llm = self.llm(name)
        if not isinstance(llm, LocalModel) or llm.engine is not None:
            return int(llm.context_window)
        from glm_rag.models.loading import model_info, resolve

        return model_info(resolve(llm.model, self.settings.models_dir)).context_window

    def load(self) -> None:
        """Load the settings' model and the embedder now, not at the first question."""
        self.loading.set()
        try:
            llm = self.llm()
            if hasattr(llm, "open"):
                llm.open()
            self.embeddings().embed_query("ready?")
        finally:
            self.loading.clear()

    def completion_llm(self, name: str | None = None) -> LocalModel:
        """The same model, where it can go on with raw text.

        Raises:
            ApiError: it is behind another server.
        """
        llm = self.llm(name)
        if not isinstance(llm, LocalModel):
            message = "raw text needs a model in this process: ask the server behind llm.base_url"
            raise ApiError(400, message, param="model", code="unsupported")
        return llm

    def embeddings(self) -> TokenEmbeddings:
        """The embedder of the settings."""
        with self._model_lock:
            if self._embeddings is None:
                self._embeddings = build_embeddings(self.settings)
            return self._embeddings

    def knowledge_base(self, name: str) -> KnowledgeBase:
        """An open knowledge base, shared by all; errors as in `OpenBases.get`."""
        return self._bases.get(name)

    def retriever(self, kb_name: str) -> HybridRetriever:
        """What finds passages in a knowledge base; errors as in `OpenBases.retriever`."""
        return self._bases.retriever(kb_name)

    def assistant(self, kb_name: str, model: str | None = None) -> Assistant:
        """An assistant that answers from a knowledge base, with the settings' model or another.

        Errors as in `OpenBases.assistant`.
        """
        assistant = copy(self._bases.assistant(kb_name))
        assistant.llm = self.llm(model)
        return assistant

    def forget(self, name: str) -> None:
        """Close a knowledge base, as before it is deleted; nothing happens if it is not open."""
        self._bases.forget(name)

    def knowledge_bases(self) -> Sequence[str]:
        """Names of those there are."""
        return self._bases.names()

    def close(self) -> None:
        """Close all of them."""
        self._bases.close()


@dataclass
class ServerContext:
    """State of one server, at `request.app.state.context`.

    Attributes:
        line: of answers. small_line: of embeddings, which are short.
        threads: where answers are computed, one for each place of the line.
        memory: of answers from documents.
        tracer: None where no traces are wanted.
        closing: the server ends: nothing new is begun.
        hide: takes out of messages what is not for clients.
        outside: asks the store and the model whether they are there.
        looks: what `/readyz` found last, where it was not well.
    """

    settings: Settings
    keys: KeyStore
    line: FairLine
    metrics: Metrics
    models: Models
    small_line: FairLine
    threads: ThreadPoolExecutor
    hide: Hiding
    tracer: Tracer | None = None
    outside: Outside = field(default_factory=Outside)
    memory: Memory = field(default_factory=Memory)
    closing: threading.Event = field(default_factory=threading.Event)
    looks: dict[str, str] = field(default_factory=dict)

    @classmethod
    def build(
        cls, settings: Settings, keys: KeyStore | None = None, models: Models | None = None
    ) -> ServerContext:
        """The state of a server with these settings."""
        server = settings.server
        line = FairLine(server.max_running, server.max_waiting)
        places = min(_EMBEDDING_PLACES, server.max_running)
        return cls(
            settings=settings,
            keys=keys or KeyStore(settings.home / FILE_NAME),
            line=line,
            metrics=Metrics(line),
            models=models or Models(settings),
            small_line=FairLine(places, server.max_waiting),
            threads=ThreadPoolExecutor(
                server.max_running + places, thread_name_prefix="glm-rag-answer"
            ),
            hide=Hiding(settings),
            tracer=Tracer.create(server.otlp_endpoint),
        )

    def close(self) -> None:
        """Let go of everything, once what runs has ended."""
        self.threads.shutdown(wait=True, cancel_futures=True)
        self.outside.close()
        self.models.close()
        if self.tracer is not None:
            self.tracer.close()

    def stop(self) -> None:
        """Begin nothing new: whoever waits is told, what runs goes on."""
        self.closing.set()
        self.line.close()
        self.small_line.close()


def context_of(request: Request) -> ServerContext:
    """The state of the server that got this request; a FastAPI dependency."""
    context: ServerContext = request.app.state.context
    return context


def public_name(name: str) -> str:
    """A model's name as clients see it: folders of this machine are left out."""
    prefix, colon, rest = name.rpartition(":")
    path = Path(rest).expanduser()
    return prefix + colon + path.name if path.is_absolute() else name


def knowledge_base_or_404(context: ServerContext, name: str) -> KnowledgeBase:
    """An open knowledge base by the name a client gave.

    Raises:
        ApiError: 404, where there is none of that name or it cannot be one.
    """
    try:
        return context.models.knowledge_base(name)
    except (KnowledgeBaseNotFoundError, ValueError) as error:
        raise ApiError(
            404, f"there is no knowledge base {name!r}", param="model",
            code="knowledge_base_not_found",
        ) from error  # fmt: skip
