"""Values as what JSON knows: mappings, lists, strings and numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def to_plain(value: object, *, complete: bool = False) -> Any:
    """Turn dataclasses, LangChain documents, NumPy numbers and tuples into what JSON knows.

    Args:
        complete: with the fields that say `json: False`, which are not for people to read.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_plain(getattr(value, field.name), complete=complete)
            for field in dataclasses.fields(value)
            if complete or field.metadata.get("json", True)
        }
    if isinstance(value, Mapping):
        return {str(key): to_plain(item, complete=complete) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item, complete=complete) for item in value]
    if hasattr(value, "page_content"):
        return {
            "id": getattr(value, "id", None),
            "text": value.page_content,
            "metadata": to_plain(getattr(value, "metadata", {}), complete=complete),
        }
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value) if isinstance(value, Path) else value
