"""What clients of OpenAI's API send, as far as it means something here.

Fields that change nothing (`user`, `metadata`, `store`, ...) are taken and ignored. Those that
would change the answer in a way that this server cannot are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from glm_rag_server.errors import ApiError

MAX_INPUTS = 2048
# They hold one place, one after another.
MAX_PROMPTS = 128


def _whole(text: str) -> str:
    # JSON can say half a character ("\\ud800"), which no tokenizer and no file takes.
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a character is cut in half: send valid Unicode") from None
    return text


Text = Annotated[str, AfterValidator(_whole)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_whole)]

# What may stand in a field that is not supported otherwise.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
}
_NEUTRAL_COMPLETION: dict[str, tuple[Any, ...]] = {
    **{name: _NEUTRAL[name] for name in ("n", "presence_penalty", "frequency_penalty")},
    "logit_bias": ({},),
    "logprobs": (),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
}
# Where these say "none", nothing is to be called.
_CHOICES = {"tools": "tool_choice", "functions": "function_call"}
_HINTS = {
    "n": "ask several times instead",
    "tools": "the model was not trained to call tools",
    "functions": "the model was not trained to call functions",
    "response_format": "the model cannot be held to a schema; ask for the form in words",
    "presence_penalty": "use `repetition_penalty`",
    "frequency_penalty": "use `repetition_penalty`",
}


class _Request(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())


class StreamOptions(_Request):
    """What a stream carries besides the text."""

    include_usage: bool | None = Field(None, description="a last chunk with the token counts")


class SamplingRequest(_Request):
    """How tokens are chosen; what is left out is as the server's `generation` settings say."""

    temperature: float | None = Field(None, ge=0, le=100, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    top_k: int | None = Field(None, ge=0, le=10**6, description="0: all tokens; an extension")
    repetition_penalty: float | None = Field(
        None, gt=0, le=100, allow_inf_nan=False, description="1: none; an extension"
    )
    max_tokens: int | None = Field(None, ge=1, le=10**7)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    def sampling(self) -> dict[str, Any]:
        """What was asked for, as the chat model takes it for one call."""
        names = ("temperature", "top_p", "top_k", "repetition_penalty", "max_tokens", "seed")
        given = {name: getattr(self, name) for name in names}
        options = {name: value for name, value in given.items() if value is not None}
        if self.seed is not None:
            options["seed"] = self.seed % 2**63  # OpenAI's may be negative
        if self.stop:
            options["stop"] = [self.stop] if isinstance(self.stop, str) else list(self.stop)
        return options

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)


class Part(_Request):
    """A part of a message; only `text` is read."""

    type: Text
    text: Text | None = None


class Message(_Request):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[Part] | None = None

    def text(self, param: str) -> str:
        """All of its text.

        Raises:
            ApiError: it holds something else.
        """
        if (self.model_extra or {}).get("tool_calls"):
            raise ApiError(400, "tool calls are not supported", param=f"{param}.tool_calls")
        if self.content is None:
            if self.role == "assistant":
                return ""
            raise ApiError(400, f"{param}.content is missing", param=f"{param}.content")
        if isinstance(self.content, str):
            return self.content
        for number, part in enumerate(self.content):
            if part.type != "text" or part.text is None:
                at = f"{param}.content.{number}"
                message = f"{at}: the model reads text only, not {part.type[:40]!r}"
                raise ApiError(400, message, param=at, code="unsupported_content")
        return "".join(part.text or "" for part in self.content)


class ChatRequest(SamplingRequest):
    """`POST /v1/chat/completions`."""

    model: Text = Field(
        description="as `/v1/models` lists it; `kb:NAME` answers from a knowledge base"
    )
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, le=10**7)
    knowledge_base: Text | None = Field(
        None, description="answer from this knowledge base with the model named; an extension"
    )

    def sampling(self) -> dict[str, Any]:
        """As above; the newer name of the token limit wins."""
        options = super().sampling()
        if self.max_completion_tokens is not None:
            options["max_tokens"] = self.max_completion_tokens
        return options

    def texts(self) -> list[tuple[str, str]]:
        """(role, text) of all messages, those of the system first, in one.

        Prompts have a place for instructions at their head only, and many clients send some later.

        Raises:
            ApiError: a message holds something else than text.
        """
        system, dialogue = [], []
        for number, message in enumerate(self.messages):
            text = message.text(f"messages.{number}")
            if message.role in ("system", "developer"):
                system.append(text)
            else:
                dialogue.append((str(message.role), text))
        return [("system", "\n\n".join(filter(None, system))), *dialogue] if system else dialogue


class CompletionRequest(SamplingRequest):
    """`POST /v1/completions`: goes on with a raw text, without chat format."""

    model: Text
    prompt: Text | list[Text] | list[int] | list[list[int]] = Field(
        description="as text or as token ids of the model; a list has a choice for each"
    )

    def given(self) -> list[str | list[int]]:
        """The prompts, as text or as token ids.

        Raises:
            ApiError: none, or too many.
        """
        given: Sequence[Any] = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        prompts = [given] if given and isinstance(given[0], int) else given
        if not 1 <= len(prompts) <= MAX_PROMPTS:
            message = f"send 1 to {MAX_PROMPTS} prompts, not {len(prompts)}"
            raise ApiError(400, message, param="prompt")
        return list(prompts)


class EmbeddingRequest(_Request):
    """`POST /v1/embeddings`."""

    model: Text
    input: Text | list[Text] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = None
    input_type: Literal["passage", "query"] | None = Field(
        "passage", description="what the texts are to the embedder; an extension"
    )

    def texts(self) -> list[str]:
        """What is to be embedded.

        Raises:
            ApiError: nothing, too much, an empty text, or token ids.
        """
        inputs = [self.input] if isinstance(self.input, str) else self.input
        if not 1 <= len(inputs) <= MAX_INPUTS:
            raise ApiError(400, f"send 1 to {MAX_INPUTS} texts", param="input")
        texts = [text for text in inputs if isinstance(text, str)]
        if len(texts) != len(inputs):
            message = (
                "send texts, not token ids (with LangChain's OpenAIEmbeddings: "
                "check_embedding_ctx_length=False)"
            )
            raise ApiError(400, message, param="input", code="unsupported_token_ids")
        if not all(map(str.strip, texts)):
            raise ApiError(400, "an input is empty", param="input")
        return texts


def refuse_unsupported(request: ChatRequest | CompletionRequest) -> None:
    """Refuse what would change the answer and cannot.

    Raises:
        ApiError: the first such field.
    """
    is_chat = isinstance(request, ChatRequest)
    extra: Mapping[str, Any] = request.model_extra or {}
    for name, accepted in (_NEUTRAL if is_chat else _NEUTRAL_COMPLETION).items():
        value = extra.get(name)
        is_off = name in _CHOICES and extra.get(_CHOICES[name]) == "none"
        if value is None or value in accepted or is_off:
            continue
        hint = _HINTS.get(name, "leave it out")
        raise ApiError(
            400, f"`{name}` is not supported here: {hint}", param=name, code="unsupported"
        )
