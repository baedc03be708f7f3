"""What a node has installed. Sent there by value: it may have no glm-rag to import it from."""

from __future__ import annotations


def versions() -> dict[str, str]:
    """Version of glm-rag and of its loaders; empty where they are missing."""
    try:
        from glm_rag import __version__
        from glm_rag_ingest import loaders
    except ImportError:
        return {}
    return {"version": __version__, "loaders": loaders.versions()}
