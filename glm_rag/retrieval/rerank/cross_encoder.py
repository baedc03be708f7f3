"""A cross-encoder of sentence-transformers: one model reads question and passage together."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from glm_rag.errors import ConfigError, MissingDependencyError, ModelNotFoundError
from glm_rag.retrieval.rerank.base import shown_text
from glm_rag.settings import expand_user

if TYPE_CHECKING:
    from langchain_core.documents import Document


class CrossEncoderReranker:
    """Any cross-encoder, from a folder or from the hub's cache on this machine.

    It is loaded on first use and never downloaded: a question should not fetch gigabytes.

    Args:
        model: folder, or name as the hub has it.

    Raises:
        ConfigError: no model named.
        MissingDependencyError, ModelNotFoundError: on first use.
    """

    def __init__(self, model: str) -> None:
        if not model:
            raise ConfigError("name the cross-encoder in `retrieval.rerank_model`")
        self.model = model
        self._lock = threading.Lock()

    def scores(self, question: str, documents: Sequence[Document]) -> list[float]:
        """The model's own scores."""
        if not documents:
            return []
        pairs = [(question, shown_text(document)) for document in documents]
        # The tokenizer underneath cannot be borrowed by two threads at once.
        with self._lock:
            scores = self._encoder.predict(pairs, show_progress_bar=False)
        return [float(score) for score in scores]

    @cached_property
    def _encoder(self) -> Any:
        try:
            from sentence_transformers import CrossEncoder
        except ImportError as error:
            raise MissingDependencyError.for_extra(
                "sentence-transformers", "sentence-transformers"
            ) from error
        folder = expand_user(self.model)
        try:
            return CrossEncoder(
                str(folder) if folder.is_dir() else self.model, local_files_only=True
            )
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelNotFoundError(
                f"cannot load the cross-encoder {self.model!r}: name a folder that holds it, or "
                f"run hf download {self.model} first ({reason})"
            ) from error
