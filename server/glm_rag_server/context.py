"""What every route shares: settings, keys, the queue, figures, and what is open of models."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_rag.build import (
    build_assistant,
    build_embeddings,
    build_llm,
    list_knowledge_bases,
    open_knowledge_base,
)
from glm_rag.errors import KnowledgeBaseNotFoundError
from glm_rag.settings import Settings
from glm_rag.waiting import FairLine
from glm_rag_server.errors import ApiError
from glm_rag_server.keys import FILE_NAME, KeyStore
from glm_rag_server.metrics import Metrics

if TYPE_CHECKING:
    from starlette.requests import Request

    from glm_rag.assistant import Assistant
    from glm_rag.embeddings import TokenEmbeddings
    from glm_rag.knowledge.base import KnowledgeBase

KB_PREFIX = "kb:"
_EMBEDDING_PLACES = 2


class Models:
    """Models and knowledge bases by the names that clients use. Opened on first use, then kept.

    Any thread may use it; opening takes time, so coroutines do it in a thread.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.RLock()
        self._llms: dict[str, Any] = {}
        self._embeddings: TokenEmbeddings | None = None
        self._open: dict[str, tuple[int, KnowledgeBase]] = {}

    @property
    def name(self) -> str:
        """What clients call the model of the settings; of a folder its name alone."""
        llm = self.settings.llm
        named = llm.model if llm.backend == "openai" and llm.model else self.settings.model.name
        return public_name(named)

    def llm(self) -> Any:
        """The chat model. Cheap: weights load on first use."""
        with self._lock:
            if "chat" not in self._llms:
                self._llms["chat"] = build_llm(self.settings)
            return self._llms["chat"]

    def embeddings(self) -> TokenEmbeddings:
        """The embedder of the settings."""
        with self._lock:
            if self._embeddings is None:
                self._embeddings = build_embeddings(self.settings)
            return self._embeddings

    def knowledge_base(self, name: str) -> KnowledgeBase:
        """An open knowledge base, shared by all; do not close it.

        Raises:
            ConfigError: not a name. KnowledgeBaseNotFoundError: there is none.
            KnowledgeBaseError: it cannot be opened.
        """
        with self._lock:
            identity = self._identity(name)
            if name in self._open:
                known, kb = self._open[name]
                if known == identity:
                    return kb
                self.forget(name)  # it was deleted and made anew
            kb = open_knowledge_base(self.settings, name)
            self._open[name] = identity, kb
            return kb

    def assistant(self, kb_name: str) -> Assistant:
        """An assistant that answers from a knowledge base; errors as in `knowledge_base`."""
        assistant = build_assistant(self.settings, self.knowledge_base(kb_name))
        assistant.llm = self.llm()
        return assistant

    def forget(self, name: str) -> None:
        """Close a knowledge base, as before it is deleted; nothing happens if it is not open."""
        with self._lock:
            found = self._open.pop(name, None)
            if found is not None:
                found[1].close()

    def knowledge_bases(self) -> Sequence[str]:
        """Names of those there are."""
        return list_knowledge_bases(self.settings)

    def close(self) -> None:
        """Close all of them."""
        for name in list(self._open):
            self.forget(name)

    def _identity(self, name: str) -> int:
        """A number that changes when one is deleted and made anew."""
        if self.settings.store.backend != "faiss":
            return 0
        from glm_rag.knowledge.database import FILE_NAME as DATABASE
        from glm_rag.knowledge.naming import existing_folder

        return (existing_folder(name, self.settings.home) / DATABASE).stat().st_ino


@dataclass
class ServerContext:
    """State of one server, at `request.app.state.context`.

    Attributes:
        line: of answers. small_line: of embeddings, which are short.
        threads: where answers are computed, one for each place of the line.
        closing: the server ends: nothing new is begun.
    """

    settings: Settings
    keys: KeyStore
    line: FairLine
    metrics: Metrics
    models: Models
    small_line: FairLine
    threads: ThreadPoolExecutor
    closing: threading.Event = field(default_factory=threading.Event)

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
        )

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
