"""What is measured: a knowledge base with its settings, or two that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm_rag.cli.common import named_model
from glm_rag.config import load_config
from glm_rag.errors import ConfigError
from glm_rag.settings import Settings


@dataclass(frozen=True, slots=True)
class Variant:
    """One configuration to measure."""

    name: str
    kb: str
    config: Path | None
    model: str | None

    def settings(self, **overrides: Any) -> Settings:
        """Its settings; `overrides` go before them, as in `retrieval__k=20`."""
        given = {key.replace("__", "."): value for key, value in overrides.items()}
        return load_config(self.config, overrides={**named_model(self.model), **given})


def variants_of(
    kbs: Sequence[str], configs: Sequence[Path | None], model: str | None
) -> list[Variant]:
    """One variant, or two where two knowledge bases or two files are named.

    Raises:
        ConfigError: more than two, or two that are the same.
    """
    size = max(len(kbs), len(configs))
    if size > 2:
        raise ConfigError("two configurations can be compared, not more")
    many_kbs = [*kbs] * size if len(kbs) == 1 else [*kbs]
    many_configs = [*configs] * size if len(configs) == 1 else [*configs]
    found = []
    for name, file in zip(many_kbs, many_configs, strict=True):
        parts = [name] if len(set(kbs)) > 1 else []
        parts += [file.stem] if file is not None and len(set(configs)) > 1 else []
        found.append(Variant(" ".join(parts) or name, name, file, model))
    if len({variant.name for variant in found}) < len(found):
        raise ConfigError("the two configurations are the same, or their files have one name")
    return found
