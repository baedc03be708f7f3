"""A follow-up question made self-contained: by rule, or by a model that is large enough."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.runnables import RunnableBinding

from glm_rag.conversation import leans_on_history, own_terms, search_question
from glm_rag.local_model import LocalModel
from glm_rag.prompting import as_data
from glm_rag.remote_model import RemoteModel
from glm_rag.text import query_terms
from glm_rag.types import ChatTurn, Language

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import Runnable

    from glm_rag.templates import Template

RewriteMode = Literal["auto", "rule", "model", "off"]

# From here on `auto` asks the model: smaller ones answer the question instead of rewriting it.
MIN_PARAMETERS = 3_000_000_000
# A question is a sentence or two.
MAX_TOKENS = 64
# What a follow-up refers to stands in the last rounds, and in the beginning of their answers.
_NUM_TURNS = 4
_MAX_CHARACTERS = 300
# Words put between two Chinese ones part their bigrams; more than a third of them lost is no
# longer the same question.
_KEPT_SHARE = 2 / 3

_LABEL = re.compile(r"^(?:(?:next |rewritten )?question|(?:改写后的|下一个)?问题)\s*[:：]\s*", re.I)
_QUOTES = "\"'“”‘’「」『』"
_SPEAKERS: dict[Language, tuple[str, str]] = {"en": ("User", "Assistant"), "zh": ("用户", "助手")}


@dataclass(frozen=True, slots=True)
class SearchQuestion:
    """What is searched for instead of a question; `note` says why the model's was not taken."""

    text: str
    by: Literal["as asked", "rule", "model"]
    note: str = ""


def by_rule(question: str, turns: Sequence[ChatTurn], mode: RewriteMode) -> SearchQuestion:
    """A question that leans on the conversation with the one before it, any other as asked."""
    text = question if mode == "off" else search_question(question, turns)
    return SearchQuestion(text, "as asked" if text == question else "rule")


def asks_model(mode: RewriteMode, llm: Runnable[Any, Any]) -> bool:
    """Whether the model is to rewrite: told to, or known to be large enough."""
    if mode != "auto":
        return mode == "model"
    size = getattr(_inner(llm), "num_parameters", None)
    return isinstance(size, int) and size >= MIN_PARAMETERS


def request(
    question: str, turns: Sequence[ChatTurn], template: Template, language: Language
) -> ChatTurn:
    """What the model is asked: the last rounds, and to write the question without them."""
    user, assistant = _SPEAKERS[language]
    history = "\n".join(
        f"{user if turn.role == 'user' else assistant}: {_shortened(turn.text)}"
        for turn in turns[-_NUM_TURNS:]
    )
    return ChatTurn("user", template.rewrite.format(history=history, question=question))


def greedy_options(llm: Runnable[Any, Any]) -> dict[str, Any]:
    """Arguments of a short, repeatable call; other people's models keep their own settings."""
    if not isinstance(_inner(llm), (LocalModel, RemoteModel)):
        return {}
    return {"temperature": 0.0, "max_tokens": MAX_TOKENS}


def accepted(reply: BaseMessage, question: str, rule: SearchQuestion) -> SearchQuestion:
    """The model's question, or the rule's where it is none."""
    lines = [line.strip() for line in str(reply.text).splitlines() if line.strip()]
    text = _LABEL.sub("", lines[0]).strip(_QUOTES + " ") if lines else ""
    note = _fault(text, question, rule)
    if reply.response_metadata.get("finish_reason") == "length":
        note = "it did not end"
    if note:
        return SearchQuestion(rule.text, rule.by, f"not the model's question: {note}")
    return SearchQuestion(text, "model")


def _fault(text: str, question: str, rule: SearchQuestion) -> str:
    if not query_terms(text):
        return "it is empty"
    if len(text) > 2 * len(rule.text):
        return "it is too long"
    wanted = own_terms(question)
    found = set(query_terms(text))
    if sum(term in found for term in wanted) < _KEPT_SHARE * len(wanted):
        return "it lost the question's words"
    return "it still leans on the conversation" if leans_on_history(text) else ""


def _shortened(text: str) -> str:
    return as_data(" ".join(text.split())[:_MAX_CHARACTERS])


def _inner(llm: Runnable[Any, Any]) -> Runnable[Any, Any]:
    while isinstance(llm, RunnableBinding):
        llm = llm.bound
    return llm
