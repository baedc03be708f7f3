"""`ask` and its relatives: one call from a question to a cited answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_rag.build import build_assistant, open_for_questions
from glm_rag.config import load_config
from glm_rag.errors import ConfigError
from glm_rag.settings import Settings
from glm_rag.types import Answer, AnswerDelta, ChatTurn

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from glm_rag.assistant import Assistant
    from glm_rag.knowledge.base import KnowledgeBase

    History = Answer | Sequence[tuple[str, str]] | Sequence[ChatTurn] | Sequence[BaseMessage]

# A Settings object, or a YAML file to read; None reads the user's default configuration.
Config = Settings | str | Path | None


def stream(
    question: str,
    kb: str | KnowledgeBase = "default",
    *,
    history: History | None = None,
    config: Config = None,
    overrides: Mapping[str, Any] | None = None,
) -> Iterator[AnswerDelta]:
    """Answer a question from a knowledge base, piece by piece.

    Args:
        question: in Chinese or English; the answer is in the question's language.
        kb: name of a knowledge base in the data folder, or an open one.
        history: the previous `Answer`, or (role, text) pairs, for a follow-up question.
        config: settings, or a YAML file of them.
        overrides: settings by dotted name, such as `{"model.name": "chatglm2-6b-32k"}`.

    Yields:
        Pieces of text; the last one carries the whole `Answer`.

    Raises:
        KnowledgeBaseNotFoundError: no such knowledge base.
        KnowledgeBaseError: it is empty, or made with another embedder.
        ModelNotFoundError: the model has not been pulled.
        ContextWindowError: question and history do not fit into the window.
    """
    with _assistant(kb, config, overrides) as assistant:
        yield from assistant.stream(question, history=history)


def ask(
    question: str,
    kb: str | KnowledgeBase = "default",
    *,
    history: History | None = None,
    config: Config = None,
    overrides: Mapping[str, Any] | None = None,
) -> Answer:
    """Answer a question from a knowledge base; arguments and errors as in `stream`."""
    with _assistant(kb, config, overrides) as assistant:
        return assistant.ask(question, history=history)


async def astream(
    question: str,
    kb: str | KnowledgeBase = "default",
    *,
    history: History | None = None,
    config: Config = None,
    overrides: Mapping[str, Any] | None = None,
) -> AsyncIterator[AnswerDelta]:
    """`stream` for asyncio; cancelling the consumer stops the generation."""
    with _assistant(kb, config, overrides) as assistant:
        async for delta in assistant.astream(question, history=history):
            yield delta


async def aask(
    question: str,
    kb: str | KnowledgeBase = "default",
    *,
    history: History | None = None,
    config: Config = None,
    overrides: Mapping[str, Any] | None = None,
) -> Answer:
    """`ask` for asyncio; arguments and errors as in `stream`."""
    with _assistant(kb, config, overrides) as assistant:
        return await assistant.aask(question, history=history)


def resolve_config(config: Config, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings as given, or read from a file and the environment."""
    if isinstance(config, Settings):
        if overrides:
            raise ConfigError("pass either a Settings object or overrides, not both")
        return config
    return load_config(config, overrides=overrides)


@contextmanager
def _assistant(
    kb: str | KnowledgeBase, config: Config, overrides: Mapping[str, Any] | None
) -> Iterator[Assistant]:
    """An assistant over `kb`; a knowledge base opened here is closed here."""
    settings = resolve_config(config, overrides)
    if not isinstance(kb, str):
        yield build_assistant(settings, kb)
        return
    with open_for_questions(settings, kb) as opened:
        yield build_assistant(settings, opened)
