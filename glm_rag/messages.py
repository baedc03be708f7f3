"""LangChain messages to the engine's turns and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
)

from glm_rag.errors import ConfigError
from glm_rag.types import ChatTurn, Role

# Key of `AIMessage.additional_kwargs` that holds the ids the model generated.
TOKEN_IDS = "token_ids"

_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}


def to_turns(messages: Sequence[BaseMessage]) -> list[ChatTurn]:
    """Messages as turns; consecutive ones of a role become one, joined by a blank line.

    Raises:
        ConfigError: a kind of message or content that ChatGLM2 cannot read (tools, images).
    """
    turns: list[ChatTurn] = []
    for message in messages:
        turn = _to_turn(message)
        if turns and turns[-1].role == turn.role:
            turn = ChatTurn(turn.role, f"{turns.pop().text}\n\n{turn.text}")
        turns.append(turn)
    return turns


def prompt_turns(messages: Sequence[BaseMessage]) -> list[ChatTurn]:
    """`to_turns` for a conversation that the model is to answer.

    Raises:
        ConfigError: not of the form system?, user, assistant, user, ..., user.
    """
    turns = to_turns(messages)
    dialogue = turns[1:] if turns and turns[0].role == "system" else turns
    if any(turn.role == "system" for turn in dialogue):
        raise ConfigError("a system message must come first: move it to the front")
    if not dialogue:
        raise ConfigError("there is nothing to answer: add a user message")
    if dialogue[0].role == "assistant":
        raise ConfigError("a conversation starts with a user message: drop the greeting before it")
    if dialogue[-1].role == "assistant":
        raise ConfigError("the conversation ends with an assistant message: add a user message")
    return turns


def to_messages(turns: Iterable[ChatTurn]) -> list[BaseMessage]:
    """Turns as LangChain messages; kept token ids travel in `additional_kwargs`."""
    return [_to_message(turn) for turn in turns]


def _to_message(turn: ChatTurn) -> BaseMessage:
    if turn.role == "system":
        return SystemMessage(turn.text)
    if turn.role == "user":
        return HumanMessage(turn.text)
    kept = {} if turn.token_ids is None else {TOKEN_IDS: list(turn.token_ids)}
    return AIMessage(turn.text, additional_kwargs=kept)


def _to_turn(message: BaseMessage) -> ChatTurn:
    name = message.role if isinstance(message, ChatMessage) else _kind(message)
    role = _ROLES.get(name)
    if role is None:
        raise ConfigError(
            f"ChatGLM2 reads system, user and assistant messages, not `{name}`: "
            "put its text into a user message"
        )
    if getattr(message, "tool_calls", None):
        raise ConfigError("ChatGLM2 cannot call tools: remove the tool calls from the conversation")
    return ChatTurn(role, _text(message), _token_ids(message))


def _kind(message: BaseMessage) -> str:
    return message.type.removesuffix("MessageChunk").lower()


def _text(message: BaseMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    return "".join(_block_text(block) for block in message.content)


def _block_text(block: object) -> str:
    if isinstance(block, str):
        return block
    if isinstance(block, dict) and block.get("type") == "text":
        return str(block.get("text", ""))
    kind = block.get("type", "unknown") if isinstance(block, dict) else type(block).__name__
    raise ConfigError(f"ChatGLM2 reads text only: remove the `{kind}` block from the message")


def _token_ids(message: BaseMessage) -> tuple[int, ...] | None:
    ids = message.additional_kwargs.get(TOKEN_IDS)
    if not isinstance(message, AIMessage) or not isinstance(ids, list):
        return None
    return tuple(ids) if all(isinstance(token, int) for token in ids) else None
