"""Sample documents that come with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def handbook_folder() -> Path:
    """Folder of the bilingual sample handbook."""
    return Path(str(resources.files("glm_rag"))) / "samples" / "handbook"
