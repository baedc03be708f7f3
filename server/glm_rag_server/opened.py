"""Knowledge bases that a server has open, and what answers from them, while it is theirs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glm_rag.build import (
    build_assistant,
    build_retriever,
    list_knowledge_bases,
    open_knowledge_base,
)
from glm_rag.stores import close_connections, identity_of
from glm_rag.templates import PROMPT_FILE

if TYPE_CHECKING:
    from glm_rag.assistant import Assistant
    from glm_rag.knowledge.base import KnowledgeBase
    from glm_rag.retrieval.rerank.base import Reranker
    from glm_rag.retrieval.retriever import HybridRetriever
    from glm_rag.settings import Settings

Words = tuple[int, ...]


@dataclass
class _Asked:
    """What was made for a knowledge base when its prompts had these words."""

    kb: KnowledgeBase
    words: Words
    retriever: HybridRetriever
    assistant: Assistant | None = None


class OpenBases:
    """Opened on first use, then kept until the knowledge base is another one.

    The one place that knows when something made for a knowledge base is stale: it was deleted and
    made anew, or the words of its prompts were changed. Any thread may use it; opening takes time.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.RLock()
        self._open: dict[str, tuple[int, KnowledgeBase]] = {}
        self._asked: dict[str, _Asked] = {}
        self._cross_encoder: Reranker | None = None

    def get(self, name: str) -> KnowledgeBase:
        """An open knowledge base, shared by all; do not close it.

        Raises:
            ConfigError: not a name. KnowledgeBaseNotFoundError: there is none.
            KnowledgeBaseError: it cannot be opened.
        """
        # Not under the lock: where the store hangs, each would wait for all that came before.
        identity = identity_of(self._settings, name)
        with self._lock:
            if (known := self._open.get(name)) is not None and known[0] == identity:
                return known[1]
            # It was deleted and made anew, unless it was just now, and another thread knows.
            identity = identity_of(self._settings, name)
            if (known := self._open.get(name)) is not None and known[0] == identity:
                return known[1]
            self.forget(name)
            kb = open_knowledge_base(self._settings, name)
            self._open[name] = identity, kb
            return kb

    def retriever(self, name: str) -> HybridRetriever:
        """What finds passages, kept with the model that orders them anew; copy it to change it.

        Errors as in `get`; ConfigError where the knowledge base's prompts cannot be used.
        """
        kb = self.get(name)
        with self._lock:
            return self._current(name, kb).retriever

    def assistant(self, name: str) -> Assistant:
        """What answers with the settings' model; copy it to change it. Errors as in `retriever`."""
        kb = self.get(name)
        with self._lock:
            asked = self._current(name, kb)
            if asked.assistant is None:
                asked.assistant = build_assistant(self._settings, asked.kb)
                asked.assistant.retriever = asked.retriever
            return asked.assistant

    def forget(self, name: str) -> None:
        """Close a knowledge base, as before it is deleted; nothing happens if it is not open."""
        with self._lock:
            self._asked.pop(name, None)
            found = self._open.pop(name, None)
            if found is not None:
                found[1].close()

    def names(self) -> Sequence[str]:
        """Names of those there are."""
        return list_knowledge_bases(self._settings)

    def close(self) -> None:
        """Close all of them."""
        for name in list(self._open):
            self.forget(name)
        close_connections()

    # ------------------------------------------------------------ under the lock

    def _current(self, name: str, kb: KnowledgeBase) -> _Asked:
        words = _words_of(kb)
        known = self._asked.get(name)
        if known is None or known.kb is not kb or known.words != words:
            known = self._asked[name] = _Asked(kb, words, self._new_retriever(kb))
        return known

    def _new_retriever(self, kb: KnowledgeBase) -> HybridRetriever:
        made = build_retriever(self._settings, kb)
        if self._settings.retrieval.rerank != "cross-encoder":
            return made
        # It reads no prompt: one model in memory serves all knowledge bases.
        self._cross_encoder = self._cross_encoder or made.reranker
        return made.model_copy(update={"reranker": self._cross_encoder})


def _words_of(kb: KnowledgeBase) -> Words:
    """Numbers that change with the file of the knowledge base's own prompts."""
    try:
        found = (Path(kb.path) / PROMPT_FILE).stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns
