"""Settings in, reranker out; what it needs is imported only if it is chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from glm_rag.errors import ConfigError
from glm_rag.settings import RetrievalSettings

if TYPE_CHECKING:
    from glm_rag.retrieval.rerank.base import Reranker


def create_reranker(
    settings: RetrievalSettings, likelihood: Callable[[], Reranker]
) -> Reranker | None:
    """The reranker of these settings, None for none. Cheap: models load on first use.

    Args:
        likelihood: makes the one that asks the language model, which is not known here.

    Raises:
        ConfigError: a cross-encoder without a model, or a model without a cross-encoder.
    """
    if settings.rerank == "cross-encoder":
        from glm_rag.retrieval.rerank.cross_encoder import CrossEncoderReranker

        return CrossEncoderReranker(settings.rerank_model)
    if settings.rerank_model:
        raise ConfigError(
            "`retrieval.rerank_model` belongs to the cross-encoder: set "
            "`retrieval.rerank: cross-encoder` or leave the model out"
        )
    return likelihood() if settings.rerank == "likelihood" else None
