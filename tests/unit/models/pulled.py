"""What a pull leaves behind, and how it says that it failed."""

from __future__ import annotations

from pathlib import Path

import pytest


def leftovers(models_dir: Path) -> list[Path]:
    return [path for path in (models_dir / ".partial").rglob("*") if path.is_file()]


def is_one_line(error: pytest.ExceptionInfo) -> bool:
    return "\n" not in str(error.value)
