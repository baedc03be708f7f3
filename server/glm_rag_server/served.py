"""The language model as this server runs it: answers together, each broken off from outside.

An answer's thread may be waiting for its first token when the client leaves. What is running
tells `breakable` how to end it, and `running.Work` ends it from the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from glm_rag.chat_models import ChatGLM2
from glm_rag.local_model import LocalModel
from glm_rag.types import GenerationDelta, SamplingParams

if TYPE_CHECKING:
    from glm_rag.engine.engine import Engine

# Takes what ends the answer at hand, from any thread; None outside of an answer.
breakable: ContextVar[Callable[[Callable[[], None]], None] | None] = ContextVar(
    "breakable", default=None
)


class ServedChat(ChatGLM2):
    """A model whose running answer can be ended by another thread than its reader's."""

    def run(
        self, engine: Engine, prompt_ids: Sequence[int], params: SamplingParams
    ) -> Generator[GenerationDelta, None, None]:
        """As every model here, and says how to end it."""
        answer = super().run(engine, prompt_ids, params)
        tell = breakable.get()
        # Without a scheduler the answer is computed by its reader, who alone may close it.
        if tell is not None and getattr(engine, "scheduler", None) is not None:
            tell(answer.close)
        return answer


def served_chat(llm: Any, max_running: int) -> Any:
    """`llm` as the server runs it; one of another kind as it is."""
    if not isinstance(llm, ChatGLM2):
        return llm
    fields = {name: getattr(llm, name) for name in LocalModel.model_fields}
    return ServedChat(**{**fields, "max_running": max_running})
