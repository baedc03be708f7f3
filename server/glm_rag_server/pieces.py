"""Where answers come from: the model alone, the model over a knowledge base, or raw text.

Each gives the same pieces, in the thread that computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from glm_rag.counting import TokenCounter
from glm_rag.errors import GlmRagError
from glm_rag.types import Answer, AnswerDelta, ScoredDocument, Usage
from glm_rag.types.plain import to_plain
from glm_rag_server.errors import ApiError, as_api_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from glm_rag.assistant import Assistant
    from glm_rag.engine.engine import Engine
    from glm_rag.local_model import LocalModel
    from glm_rag.types import Passage
    from glm_rag_server.memory import Memory

_MESSAGES: Mapping[str, type[BaseMessage]] = {
    "system": SystemMessage,
    "user": HumanMessage,
    "assistant": AIMessage,
}


@dataclass(frozen=True, slots=True)
class End:
    """How an answer ended. `extension` is the `glm_rag` of the response, empty without passages."""

    finish_reason: str
    usage: Usage
    extension: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text. `marks` are the citations that it completed; `end` stands on the last one.

    `index` counts prompts where there are several, and `reason` ends one of them.
    """

    text: str = ""
    marks: dict[str, Any] = field(default_factory=dict)
    end: End | None = None
    index: int = 0
    reason: str | None = None


def chat_pieces(
    llm: Any, texts: Sequence[tuple[str, str]], options: Mapping[str, Any]
) -> Generator[Piece, None, None]:
    """The model's answer to a conversation of (role, text)."""
    messages = [_MESSAGES[role](text) for role, text in texts]
    reason, usage, written = "stop", None, ""
    with closing(llm.stream(messages, **options)) as chunks:
        for chunk in chunks:
            if text := str(chunk.text):
                written += text
                yield Piece(text)
            usage = _usage(chunk) or usage
            reason = chunk.response_metadata.get("finish_reason") or reason
    if usage is None:
        counter = TokenCounter(llm)
        usage = Usage(sum(counter.text(text) + 4 for _, text in texts), counter.text(written))
    yield Piece(end=End(reason, usage))


def completion_pieces(
    llm: LocalModel, prompts: Sequence[str | Sequence[int]], options: Mapping[str, Any]
) -> Generator[Piece, None, None]:
    """How the model goes on with texts, or with token ids, special ones included; in order."""
    params, engine = llm.sampling(overrides=options), llm.open()
    encode = engine.tokenizer.encode_prompt
    given = [encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    for index, ids in enumerate(given):
        _check(engine, ids, "prompt" if len(given) == 1 else f"prompt.{index}")
    total = Usage(0, 0)
    for index, ids in enumerate(given):
        reason, usage = "stop", Usage(0, 0)
        with closing(llm.run(engine, ids, params)) as deltas:
            for delta in deltas:
                if delta.text:
                    yield Piece(delta.text, index=index)
                reason, usage = delta.finish_reason or reason, delta.usage or usage
        total = _sum(total, usage)
        end = End(reason, total) if index == len(given) - 1 else None
        yield Piece(index=index, reason=reason, end=end)


def _check(engine: Engine, ids: Sequence[int], param: str) -> None:
    try:
        engine.check_prompt(ids)
    except GlmRagError as error:
        known = as_api_error(error)
        raise ApiError(
            known.status, f"{param}: {known.message}", param=param, code=known.code
        ) from error


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        one.cached_tokens + other.cached_tokens,
    )


def answer_pieces(
    open_assistant: Callable[[], Assistant],
    kb_name: str,
    texts: Sequence[tuple[str, str]],
    options: Mapping[str, Any],
    memory: Memory,
    owner: str,
) -> Generator[Piece, None, None]:
    """The answer to the last question, from documents, with what supports it."""
    notes = []
    if any(role == "system" for role, _ in texts):
        notes.append("system messages are not used: the prompt over documents has its own")
    dialogue = [(role, text) for role, text in texts if role != "system"]
    assistant = open_assistant()
    if options:
        assistant = copy(assistant)
        assistant.llm = assistant.llm.bind(**options)
    *said, (_, question) = dialogue
    place = (owner, kb_name)
    history = memory.find(place, said) or said
    written = ""
    with closing(_generator(assistant.stream(question, history=history))) as deltas:
        for delta in deltas:
            written += delta.text
            if delta.answer is None:
                yield Piece(delta.text, _marks(delta))
            else:
                answer = delta.answer
                for text in {written, answer.text}:  # as streams and whole answers give it
                    memory.keep(place, [*dialogue, ("assistant", text)], answer)
                extension = extension_of(answer, kb_name, notes, written)
                end = End(answer.finish_reason, answer.usage, extension)
                yield Piece(delta.text, _marks(delta), end)


def extension_of(
    answer: Answer, kb_name: str, notes: Sequence[str] = (), written: str | None = None
) -> dict[str, Any]:
    """The field `glm_rag` of a response; `AnswerBody` describes it."""
    return {
        "knowledge_base": kb_name,
        "abstained": answer.abstained,
        "reason": answer.reason,
        "citations": to_plain(answer.citations),
        "unsupported": to_plain(answer.unsupported),
        "passages": [_passage(passage) for passage in answer.context.passages],
        "nearest": [_nearest(found) for found in answer.nearest],
        "search_question": answer.search_question,
        "finish_reason": answer.finish_reason,
        "text": answer.text if written not in (None, answer.text) else None,
        "timings": {step: round(seconds, 4) for step, seconds in answer.timings.items()},
        "trace": to_plain(answer.trace),
        "window": to_plain(answer.window),
        "notes": list(notes),
    }


def _marks(delta: AnswerDelta) -> dict[str, Any]:
    marks = {"citations": delta.citations, "unsupported": delta.unsupported}
    return {name: to_plain(found) for name, found in marks.items() if found}


def _passage(passage: Passage) -> dict[str, Any]:
    return {
        "index": passage.index,
        **_place(passage.document.metadata),
        "start": passage.document.metadata.get("start", 0),
        "end": passage.document.metadata.get("end", 0),
        "text": passage.text,
        "num_tokens": passage.num_tokens,
        "truncated": passage.truncated,
    }


def _nearest(found: ScoredDocument) -> dict[str, Any]:
    document = found.document
    return {
        **_place(document.metadata),
        "score": round(found.score, 4),
        "text": document.page_content,
    }


def _place(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "source": str(metadata.get("source", "")),
        "title": str(metadata.get("title", "")),
        "page": metadata.get("page"),
    }


def _usage(chunk: Any) -> Usage | None:
    counts = getattr(chunk, "usage_metadata", None)
    if not counts:
        return None
    cached = (counts.get("input_token_details") or {}).get("cache_read", 0)
    return Usage(counts["input_tokens"], counts["output_tokens"], cached)


def _generator(stream: Iterator[Any]) -> Generator[Any, None, None]:
    """Streams of ours are generators, which can be closed; their types say iterator."""
    return stream  # type: ignore[return-value]
