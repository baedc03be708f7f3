"""glm-rag: ask your own documents, in Chinese and English, on your own machine.

Attributes load on first use, so `import glm_rag` imports none of torch, LangChain, FAISS.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from glm_rag._version import __version__

if TYPE_CHECKING:
    from glm_rag.api import aask, ask, astream, stream
    from glm_rag.assistant import Assistant
    from glm_rag.chat_models import ChatGLM2
    from glm_rag.config import load_config
    from glm_rag.embeddings import create_embeddings
    from glm_rag.errors import GlmRagError
    from glm_rag.knowledge.base import KnowledgeBase
    from glm_rag.llms import ChatGLM2LLM
    from glm_rag.retrieval.retriever import HybridRetriever
    from glm_rag.settings import Settings
    from glm_rag.types import Answer, Citation, IngestReport, SamplingParams
    from glm_rag_ingest.pipeline import ingest

# Idle OpenMP threads should sleep: on a busy machine spinning ones made decoding 30 times slower.
# The libraries read this when they load, and all of them load after this line.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_LAZY = {
    "Answer": "glm_rag.types",
    "Assistant": "glm_rag.assistant",
    "ChatGLM2": "glm_rag.chat_models",
    "ChatGLM2LLM": "glm_rag.llms",
    "Citation": "glm_rag.types",
    "GlmRagError": "glm_rag.errors",
    "HybridRetriever": "glm_rag.retrieval.retriever",
    "IngestReport": "glm_rag.types",
    "KnowledgeBase": "glm_rag.knowledge.base",
    "SamplingParams": "glm_rag.types",
    "Settings": "glm_rag.settings",
    "aask": "glm_rag.api",
    "ask": "glm_rag.api",
    "astream": "glm_rag.api",
    "create_embeddings": "glm_rag.embeddings",
    "ingest": "glm_rag_ingest.pipeline",
    "load_config": "glm_rag.config",
    "stream": "glm_rag.api",
}

__all__ = [
    "Answer",
    "Assistant",
    "ChatGLM2",
    "ChatGLM2LLM",
    "Citation",
    "GlmRagError",
    "HybridRetriever",
    "IngestReport",
    "KnowledgeBase",
    "SamplingParams",
    "Settings",
    "__version__",
    "aask",
    "ask",
    "astream",
    "create_embeddings",
    "ingest",
    "load_config",
    "stream",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'glm_rag' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
