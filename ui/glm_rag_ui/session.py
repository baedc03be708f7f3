"""What one browser session remembers, and what all sessions share."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from glm_rag.config import load_config
from glm_rag.conversations import CONVERSATIONS_FILE, ConversationStore
from glm_rag.errors import ConfigError
from glm_rag.settings import Settings
from glm_rag_ui import backend, choices

if TYPE_CHECKING:
    from glm_rag.assistant import Assistant
    from glm_rag.knowledge.base import KnowledgeBase
    from glm_rag.waiting import FairLine

log = logging.getLogger(__name__)

DEFAULT_KB = "default"


@dataclass(frozen=True, slots=True)
class Arguments:
    """Arguments of `glm-rag ui` that reach the page."""

    kb: str | None
    config: Path | None


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Read the part of the command line behind `--`; what is unknown is left alone."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--kb")
    parser.add_argument("--config", type=Path)
    known, _ = parser.parse_known_args(argv)
    return Arguments(known.kb, known.config)


def settings(config: Path | None, chosen: Mapping[str, Any] | None = None) -> Settings:
    """Settings of the page, with what a visitor has chosen (dotted keys) over them.

    Choices that cannot be used any more are left out, so that the page to change them opens.

    Raises:
        ConfigError: the settings themselves are wrong.
    """
    if chosen:
        try:
            return load_config(config, overrides=chosen)
        except ConfigError:
            log.warning("the choices of a profile cannot be used and are left out: %s", chosen)
    return load_config(config)


def overrides(preferences: Mapping[str, Any], kb: str, base: Settings) -> dict[str, Any]:
    """What a profile changed of the settings `base`, as dotted keys."""
    chosen = choices.in_effect(preferences.get("settings") or {}, base)
    threshold = (preferences.get("thresholds") or {}).get(kb)
    return chosen if threshold is None else {**chosen, choices.THRESHOLD: threshold}


def store(config: Settings) -> ConversationStore:
    """Conversations and preferences of all profiles, shared by all sessions."""
    return _store(str(config.home / CONVERSATIONS_FILE))


@st.cache_resource(show_spinner=False, max_entries=4)
def _store(path: str) -> ConversationStore:
    return ConversationStore(Path(path))


def waiting_line(config: Settings) -> FairLine:
    """Where questions queue up, visitors in turn: one line for each loaded model, or one for the
    server that answers, which is sent no more at once either."""
    where = config.llm if choices.server(config) else config.model
    return _waiting_line(f"{where.model_dump_json()} {config.home}", config.ui.max_running)


@st.cache_resource(show_spinner=False)
def _waiting_line(model: str, places: int) -> FairLine:
    from glm_rag.waiting import FairLine

    return FairLine(places)


def is_connected() -> bool:
    """Whether the browser that this script runs for is still there.

    False soon after the tab was closed or left; True where there is no server (tests).
    """
    context = get_script_run_ctx(suppress_warning=True)
    if context is None or not st.runtime.exists():
        return True
    return st.runtime.get_instance().is_active_session(context.session_id)


def knowledge_base(config: Settings, kb: str) -> KnowledgeBase:
    """An open knowledge base, shared by all sessions.

    Raises:
        KnowledgeBaseNotFoundError: there is none of that name, or not any more.
    """
    # Not told apart by what is searched for in it, or each filter would open it once more.
    key = f"{backend.identity(config, kb)} {config.home} {config.embeddings.model_dump_json()}"
    return _knowledge_base(key, kb, config)


def assistant(config: Settings, kb: str) -> Assistant:
    """The assistant of a knowledge base, shared by all sessions with the same settings."""
    return _assistant(f"{backend.identity(config, kb)} {config.model_dump_json()}", kb, config)


# Settings are told apart by `key`; the underscore keeps Streamlit from hashing the object.
@st.cache_resource(show_spinner=False, max_entries=16)
def _knowledge_base(key: str, kb: str, _config: Settings) -> KnowledgeBase:
    return backend.open_knowledge_base(_config, kb)


@st.cache_resource(show_spinner=False, max_entries=16)
def _assistant(key: str, kb: str, _config: Settings) -> Assistant:
    return backend.build_assistant(_config, knowledge_base(_config, kb))
