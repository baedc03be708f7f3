"""What a visitor may change of the settings, and how it is kept. Pure.

A profile keeps only what differs from the settings of the server, as dotted keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from glm_rag.models.registry import MODELS
from glm_rag.settings import Settings

RERANK_MODEL = "retrieval.rerank_model"
SEED = "generation.seed"
THRESHOLD = "retrieval.threshold"
# Logits: at either end nearly everything or nothing is answered (docs/retrieval.md).
THRESHOLD_REACH = 4.0

Group = Literal["model", "answers", "retrieval"]


@dataclass(frozen=True, slots=True)
class Choice:
    """One setting on the page.

    Attributes:
        key: dotted, as in a config file. name: of its words, `set_NAME` and `set_NAME_help`.
        kind: how it is shown. `options` belong to "one_of"; least, most and step to numbers.
    """

    key: str
    name: str
    group: Group
    kind: Literal["one_of", "share", "number", "seed", "switch", "text"]
    options: tuple[str, ...] = ()
    least: float = 0
    most: float = 1
    step: float = 0.05


CHOICES: tuple[Choice, ...] = (
    Choice("model.quantize", "quantize", "model", "one_of", ("auto", "int8", "int4")),
    Choice("generation.temperature", "temperature", "answers", "share", most=1.5),
    Choice("generation.top_p", "top_p", "answers", "share", least=0.05),
    Choice(
        "generation.max_tokens", "max_tokens", "answers", "number", least=16, most=8192, step=64
    ),
    Choice(SEED, "seed", "answers", "seed", most=2**53 - 1, step=1),
    Choice("retrieval.abstain", "abstain", "retrieval", "switch"),
    Choice("retrieval.k", "k", "retrieval", "number", least=1, most=64, step=1),
    Choice("packing.max_passages", "passages", "retrieval", "number", least=1, most=32, step=1),
    Choice("retrieval.rewrite", "rewrite", "retrieval", "one_of", ("auto", "rule", "model", "off")),
    Choice("retrieval.mmr", "mmr", "retrieval", "share"),
    Choice("retrieval.expand", "expand", "retrieval", "one_of", ("none", "neighbours", "section")),
    Choice(
        "retrieval.rerank",
        "rerank",
        "retrieval",
        "one_of",
        ("none", "likelihood", "cross-encoder"),
    ),
    Choice(RERANK_MODEL, "rerank_model", "retrieval", "text"),
)


def read(settings: Settings, key: str) -> Any:
    """The value of a setting by its dotted key."""
    section, name = key.split(".")
    return getattr(getattr(settings, section), name)


def with_choice(kept: Mapping[str, Any], base: Settings, key: str, value: object) -> dict[str, Any]:
    """A profile's choices with one more; what is as the server has it is not kept."""
    others = {name: kept[name] for name in kept if name != key}
    return others if value == read(base, key) else {**others, key: value}


def in_effect(kept: Mapping[str, Any], base: Settings) -> dict[str, Any]:
    """A profile's choices as they go together: a cross-encoder's name counts only with it."""
    chosen = dict(kept)
    rerank = chosen.get("retrieval.rerank", base.retrieval.rerank)
    if rerank != "cross-encoder" and chosen.get(RERANK_MODEL, base.retrieval.rerank_model):
        chosen[RERANK_MODEL] = ""
    return chosen


def server(settings: Settings) -> str:
    """Host of the server whose model answers; empty where one of this machine does."""
    if settings.llm.backend != "openai":
        return ""
    address = settings.llm.base_url
    return urlsplit(address).netloc.rpartition("@")[2] or address or "?"


def model_name(settings: Settings) -> str:
    """What the model that answers is called."""
    return (server(settings) and settings.llm.model) or settings.model.name


def model_title(name: str) -> str:
    """The name of a model as people write it; other folders' names and paths as they are."""
    if name not in MODELS:
        return name
    proper = {"smollm2": "SmolLM2", "chatglm2": "ChatGLM2"}
    return "-".join(proper.get(part, part.upper()) for part in name.split("-"))


def labelled(names: Iterable[str], describe: Callable[[str], str]) -> dict[str, str]:
    """A label for each name, all different: Streamlit takes two of one label for the same."""
    labels: dict[str, str] = {}
    for name in names:
        label = wanted = describe(name)
        number = 1
        while label in labels.values():
            number += 1
            label = f"{wanted} ({number})"
        labels[name] = label
    return labels


def reflowed(text: str) -> str:
    """Text with hard line breaks as paragraphs and points that fit any width."""
    return re.sub(r"\n(?! *- )\s*", " ", text)


def in_label(text: str) -> str:
    """Text from outside as it may stand in a widget's label, which Streamlit reads as Markdown."""
    return re.sub(r"([\\`*_{}\[\]()#+.!|~$:<>&-])", r"\\\1", text)
