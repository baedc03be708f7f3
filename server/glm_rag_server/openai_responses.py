"""What clients of OpenAI's API get, and the extension of answers from a knowledge base."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class CompletionTokenDetails(BaseModel):
    """Of the prompt's tokens."""

    cached_tokens: int = Field(0, description="not computed again")


class UsageBody(BaseModel):
    """Tokens, by the model's own tokenizer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CompletionTokenDetails = CompletionTokenDetails()


class PassageBody(BaseModel):
    """A passage that the model read."""

    index: int = Field(description="as the prompt numbers it, from 1")
    source: str
    title: str
    page: int | None
    start: int = Field(description="of the first character in the document's extracted text")
    end: int
    text: str
    num_tokens: int
    truncated: bool


class NearestBody(BaseModel):
    """A passage that was found and not thought enough."""

    source: str
    title: str
    page: int | None
    score: float
    text: str


class CitationBody(BaseModel):
    """Which characters of which document support which characters of the answer."""

    index: int
    answer_start: int
    answer_end: int
    chunk_id: str
    source: str
    title: str
    page: int | None
    start: int
    end: int
    quote: str
    support: Literal["verbatim", "paraphrase"]


class UnsupportedBody(BaseModel):
    """Characters of the answer that no passage supports."""

    start: int
    end: int
    kind: Literal["sentence", "number"]


class AnswerBody(BaseModel):
    """The extension `glm_rag` of an answer from a knowledge base."""

    knowledge_base: str
    abstained: bool = Field(description="no evidence was found, and the text says so")
    reason: str = Field(description="why it abstained")
    citations: list[CitationBody]
    unsupported: list[UnsupportedBody]
    passages: list[PassageBody]
    nearest: list[NearestBody] = Field(description="the best found, where it abstained")
    search_question: str = Field(description="what was searched for")
    finish_reason: Literal["stop", "length", "repetition"]
    text: str | None = Field(
        None, description="the answer without its loop, where a stream had to end in one"
    )
    timings: dict[str, float] = Field(description="seconds by step")
    trace: dict[str, Any]
    window: dict[str, Any] | None = Field(description="how the context window was spent")
    notes: list[str] = Field(description="what of the request was not used")


class ReplyBody(BaseModel):
    """The message of an answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """The one answer."""

    index: int = 0
    message: ReplyBody
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """An answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageBody
    system_fingerprint: str | None = None
    glm_rag: AnswerBody | None = None


class CompletionChoice(BaseModel):
    """The continuation of one prompt; `index` counts them from 0."""

    index: int
    text: str
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class Completion(BaseModel):
    """A continued text."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageBody
    system_fingerprint: str | None = None


class EmbeddingBody(BaseModel):
    """The vector of one text, of length 1."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="numbers, or little-endian float32 in base64")


class EmbeddingUsage(BaseModel):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """Vectors, in the order of the texts."""

    object: Literal["list"] = "list"
    model: str
    data: list[EmbeddingBody]
    usage: EmbeddingUsage


class ModelBody(BaseModel):
    """Something that has a name here."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    kind: Literal["chat", "embedding", "knowledge_base"] = Field(description="an extension")
    max_model_len: int | None = Field(
        None, description="tokens of prompt and answer together, where known; as of vLLM"
    )


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelBody]
