"""One file per format: bytes in, text out. `load` chooses by name and content."""

from glm_rag_ingest.loaders.factory import SUPPORTED, display_name, is_current, load, versions

__all__ = ["SUPPORTED", "display_name", "is_current", "load", "versions"]
