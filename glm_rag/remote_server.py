"""An OpenAI-compatible server: the clients, what it says of its models, its errors as ours."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from glm_rag.breaker import on_break
from glm_rag.errors import (
    ConfigError,
    ContextWindowError,
    GlmRagError,
    MissingDependencyError,
    ModelError,
    ModelNotFoundError,
)
from glm_rag.remote_tokens import RemoteTokens
from glm_rag.settings import LlmSettings

if TYPE_CHECKING:
    import httpx
    import openai
    from langchain_core.outputs import ChatGenerationChunk

_CONNECT_SECONDS = 10.0
_NO_KEY = "none"  # the client wants one; servers without keys read none
# Where vLLM and SGLang, other servers, and llama.cpp (below `meta`) say how long a prompt may be.
_WINDOW_KEYS = ("max_model_len", "context_window", "context_length", "n_ctx", "n_ctx_train")
_TOO_LONG = ("context_length_exceeded", "exceed_context_size_error")
_TOO_LONG_WORDS = ("context length", "context window", "context size", "maximum context")
_SHOWN_MODELS = 5


@dataclass(slots=True)
class Streamed:
    """How far an answer has come."""

    has_begun: bool = False
    has_ended: bool = False

    def see(self, chunk: ChatGenerationChunk) -> None:
        """Note a piece; in the last one the server says why the answer ends."""
        self.has_begun = True
        stated = chunk.message.response_metadata, chunk.generation_info or {}
        self.has_ended |= any(facts.get("finish_reason") for facts in stated)


class RemoteServer:
    """One model of one server. Nothing is sent before the first question."""

    def __init__(self, settings: LlmSettings, model: str) -> None:
        """Check the settings.

        Raises:
            ConfigError: no address, or none of a server.
        """
        self.settings, self.model = settings, model
        self.url = _checked(settings.base_url)
        self.tokens = RemoteTokens(settings.tokenizer)

    @cached_property
    def client(self) -> openai.OpenAI:
        """Talks to the server and to nothing else."""
        library = _openai()
        hooks = {"response": [_hang_up_on_break]}
        http = library.DefaultHttpxClient(event_hooks=hooks, **self._transport(library))
        client: openai.OpenAI = library.OpenAI(http_client=http, **self._options())
        _forget_account(client)
        return client

    @cached_property
    def async_client(self) -> openai.AsyncOpenAI:
        """The same for asyncio."""
        library = _openai()
        http = library.DefaultAsyncHttpxClient(**self._transport(library))
        client: openai.AsyncOpenAI = library.AsyncOpenAI(http_client=http, **self._options())
        _forget_account(client)
        return client

    @cached_property
    def context_window(self) -> int:
        """Tokens of prompt and answer: as set, else as the server says. Asks it once.

        Raises:
            ModelNotFoundError: it has no model of that name.
            ConfigError: it does not say. ModelError: it does not answer.
        """
        return self.settings.context_window or self._stated_window()

    def models(self) -> dict[str, Mapping[str, Any]]:
        """What the server lists under /v1/models, by name; errors as in `translated`."""
        with self.translated():
            page = self.client.models.list()
            return {model.id: model.model_dump() for model in page.data}

    def facts(self) -> Mapping[str, Any]:
        """What the server says of its model.

        Raises:
            ModelNotFoundError: it has none of that name; others as in `translated`.
        """
        listed = self.models()
        if self.model not in listed:
            raise ModelNotFoundError(self._no_such_model(list(listed)))
        return listed[self.model]

    def _stated_window(self) -> int:
        facts = self.facts()
        meta = facts.get("meta")
        for source in (facts, meta if isinstance(meta, Mapping) else {}):
            for key in _WINDOW_KEYS:
                value = source.get(key)
                if isinstance(value, int) and value > 0:
                    return value
        raise ConfigError(
            f"{self.url} does not say how many tokens {self.model} reads: set llm.context_window"
        )

    def _no_such_model(self, listed: list[str]) -> str:
        shown = ", ".join(sorted(listed)[:_SHOWN_MODELS]) or "none"
        return f"{self.url} has no model {self.model!r}: set llm.model to one that it has ({shown})"

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn what goes wrong with the server into one clear line.

        Raises:
            ConfigError: wrong key or request. ContextWindowError: the prompt is too long.
            ModelNotFoundError: no such model. ModelError: unreachable, too slow, broken.
        """
        library = _openai()
        try:
            yield
        except library.OpenAIError as error:
            raise self._as_ours(error, library) from error
        except (TypeError, ValueError, AttributeError) as error:
            if isinstance(error, GlmRagError):
                raise
            raise ModelError(
                f"{self.url} answers, but not as an OpenAI-compatible server does ({error})"
            ) from error
        except Exception as error:
            # the transport's own errors come through while an answer is streamed
            if type(error).__module__.partition(".")[0] not in {"httpx", "httpx2", "httpcore"}:
                raise
            raise self._broken(error) from error

    @contextmanager
    def streamed(self) -> Iterator[Streamed]:
        """As `translated`, for an answer in pieces, each of which is to be shown to `Streamed`.

        Raises:
            ModelError: it began and broke off.
        """
        library, came = _openai(), Streamed()
        with self.translated():
            try:
                yield came
            except library.APIConnectionError as error:
                if not came.has_begun or isinstance(error, library.APITimeoutError):
                    raise
                raise self._broken_off() from error
            if not came.has_ended:
                raise self._broken_off()

    def _broken(self, error: Exception) -> GlmRagError:
        return self._slow() if "Timeout" in type(error).__name__ else self._broken_off()

    def _broken_off(self) -> GlmRagError:
        return ModelError(f"the connection to {self.url} broke off during the answer: ask again")

    def _slow(self) -> GlmRagError:
        return ModelError(
            f"{self.url} gave no sign of life for {self.settings.timeout:g} s: look at the server, "
            "or raise llm.timeout"
        )

    def _as_ours(self, error: openai.OpenAIError, library: Any) -> GlmRagError:
        if isinstance(error, library.APITimeoutError):
            return self._slow()
        if isinstance(error, library.APIConnectionError):
            reason = " ".join(str(_first_cause(error)).split())
            return ModelError(
                f"no language model answers at {self.url} ({reason}): start the server or correct "
                "llm.base_url"
            )
        said = _message(error)
        if isinstance(error, (library.AuthenticationError, library.PermissionDeniedError)):
            return ConfigError(f"{self.url} refuses the API key ({said}): set GLM_RAG_LLM__API_KEY")
        if _is_too_long(error, said):
            return ContextWindowError(
                f"{self.url} finds the prompt too long ({said}): shorten it. If it fits by our "
                "count, set llm.context_window to what the model reads, and llm.tokenizer to its "
                "folder"
            )
        if isinstance(error, library.NotFoundError):
            return ModelNotFoundError(
                f"{self.url} does not have {self.model!r} or that address ({said}): correct "
                "llm.model or llm.base_url"
            )
        status = getattr(error, "status_code", None)
        if status in {400, 422}:
            return ConfigError(f"{self.url} refuses the request: {said}")
        if status == 429:
            return ModelError(f"{self.url} is too busy ({said}): try again later")
        return ModelError(f"{self.url} failed{f' with HTTP {status}' if status else ''}: {said}")

    def _options(self) -> dict[str, Any]:
        return {
            "base_url": self.url,
            "api_key": self.settings.api_key or _NO_KEY,
            "max_retries": self.settings.max_retries,
        }

    def _transport(self, library: Any) -> dict[str, Any]:
        seconds = self.settings.timeout
        return {
            "timeout": library.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS)),
            # a proxy of the environment has no business between us and this machine
            "trust_env": not _is_this_machine(self.url),
        }


def _openai() -> Any:
    try:
        import openai
    except ImportError as error:
        raise MissingDependencyError.for_extra("openai", "openai") from error
    return openai


def _forget_account(client: Any) -> None:
    """Drop what the client read from variables that are meant for OpenAI's own service."""
    client.organization = client.project = None


def _checked(address: str) -> str:
    if not address:
        raise ConfigError("llm.backend openai needs llm.base_url, such as http://127.0.0.1:8000/v1")
    try:
        parts = urlsplit(address.strip())
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(
            f"llm.base_url {address!r} is no address of a server: write it like "
            "http://127.0.0.1:8000/v1"
        )
    path = parts.path.rstrip("/") or "/v1"
    return parts._replace(path=path, query="", fragment="").geturl()


def _is_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _message(error: Any) -> str:
    """The server's own words, in one line."""
    body = getattr(error, "body", None)
    said = body.get("message") if isinstance(body, Mapping) else None
    return " ".join(str(said or getattr(error, "message", None) or error).split())[:300]


def _is_too_long(error: Any, said: str) -> bool:
    body = getattr(error, "body", None)
    stated = [body.get("code"), body.get("type")] if isinstance(body, Mapping) else []
    if any(name in _TOO_LONG for name in stated):
        return True
    refused = getattr(error, "status_code", None) in {400, 413, 422}
    return refused and any(words in said.lower() for words in _TOO_LONG_WORDS)


def _hang_up_on_break(response: httpx.Response) -> None:
    """Have the `Breaker` of this context end an answer whose next piece is waited for."""
    stream = response.extensions.get("network_stream")
    line: Any = None if stream is None else stream.get_extra_info("socket")

    def hang_up() -> None:
        # Of an answer that is over, the connection may be another one's.
        if not response.is_closed:
            with suppress(OSError):  # the server was faster
                # Not what TLS makes of it: that would change what the reader is using.
                socket.socket.shutdown(line, socket.SHUT_RDWR)

    if line is not None:
        on_break(hang_up)


def _first_cause(error: BaseException) -> BaseException:
    """What the libraries in between have wrapped."""
    while (cause := error.__cause__ or error.__context__) is not None and str(cause):
        error = cause
    return error
