"""Passages read ahead of time: the KV cache of a prompt up to the question, on disk."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING

from glm_rag.errors import ConfigError
from glm_rag.grounding import REFUSAL_SENTENCE
from glm_rag.passage_prompt import passage_prompt
from glm_rag.templates import TEMPLATES, Templates
from glm_rag.text import detect_language
from glm_rag.types import WarmReport

if TYPE_CHECKING:
    from langchain_core.documents import Document

    from glm_rag.chat_models import ChatGLM2
    from glm_rag.engine.cache import KVCache
    from glm_rag.engine.engine import Engine
    from glm_rag.engine.prefix_files import PrefixFiles

# Two questions that differ from their first character on.
_QUESTIONS = ("How?", "谁？")


@dataclass(frozen=True, slots=True)
class WarmPlan:
    """What there is to read. `sequences`: ids of each passage's prompt up to the question."""

    sequences: tuple[tuple[int, ...], ...]
    num_present: int
    bytes_present: int
    bytes_per_token: int

    @property
    def num_tokens(self) -> int:
        """Of all sequences."""
        return sum(map(len, self.sequences))


def passage_ids(
    llm: ChatGLM2, document: Document, templates: Templates = TEMPLATES
) -> tuple[int, ...]:
    """The ids that every question answered from this passage begins with, in its language."""
    given = document.metadata.get("language")
    language = given if given in REFUSAL_SENTENCE else detect_language(document.page_content)
    prompts = [
        passage_prompt(llm, question, document, language, templates) for question in _QUESTIONS
    ]
    return _common(*prompts)


def plan(
    passages: Iterable[Document],
    llm: ChatGLM2,
    *,
    budget: int,
    templates: Templates = TEMPLATES,
) -> WarmPlan:
    """Choose passages in the given order until the budget is full; loads the model.

    Args:
        budget: bytes on disk, with those that are there already.
        templates: the words of the prompts that will be asked.

    Raises:
        ConfigError: the cache settings write no files or fewer bytes than the budget.
    """
    engine = llm.open()
    files = _files(engine)
    if budget > files.budget:
        raise ConfigError(
            f"the budget of {budget / 1e6:.0f} MB is above cache.disk_mb "
            f"({files.budget / 1e6:.0f}): raise that setting or lower the budget"
        )
    per_token = engine.new_cache().bytes_per_column
    missing: list[tuple[int, ...]] = []
    used = num_present = bytes_present = 0
    for passage in passages:
        ids = passage_ids(llm, passage, templates)
        size = len(ids) * per_token
        if len(ids) >= engine.context_window:
            continue
        if used + size > budget:
            break
        used += size
        if files.holds(ids):
            num_present += 1
            bytes_present += size
        else:
            missing.append(ids)
    return WarmPlan(tuple(dict.fromkeys(missing)), num_present, bytes_present, per_token)


def warm(planned: WarmPlan, llm: ChatGLM2) -> Generator[WarmReport, None, None]:
    """Compute and write what is missing, one passage at a time; breaking off loses at most one.

    The beginning that prompts share is computed once and copied.

    Yields:
        Where it stands: first at the start, then after each passage.

    Raises:
        ConfigError: the cache folder cannot be written to.
    """
    engine = llm.open()
    files = _files(engine)
    started = time.perf_counter()
    base: KVCache | None = None
    yield _report(planned, 0, started)
    for number, ids in enumerate(planned.sequences, start=1):
        base = _shared_beginning(engine, planned.sequences[number - 1 :], base)
        try:
            files.save(engine.read(ids, base), pinned=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(f"cannot write to {files.folder}: {reason}") from error
        yield _report(planned, number, started)


def predict(planned: WarmPlan, llm: ChatGLM2) -> WarmReport:
    """What `warm` would do, with the time it would take by the speed of the first passage."""
    started = time.perf_counter()
    if planned.sequences:
        llm.open().read(planned.sequences[0])
    report = _report(planned, 0, started)
    first = len(planned.sequences[0]) if planned.sequences else 1
    seconds = (time.perf_counter() - started) * planned.num_tokens / first
    return replace(report, seconds_left=seconds)


def _shared_beginning(
    engine: Engine, sequences: Sequence[tuple[int, ...]], base: KVCache | None
) -> KVCache | None:
    """A cache of what the next two sequences share, unless `base` serves: one per language."""
    if len(sequences) < 2:
        return base
    shared = _common(*sequences[:2])
    held = 0 if base is None else base.common_prefix(sequences[0])
    if len(shared) <= held:
        return base
    return engine.read(shared)


def _report(planned: WarmPlan, num_read: int, started: float) -> WarmReport:
    seconds = time.perf_counter() - started
    done = sum(map(len, planned.sequences[:num_read]))
    left = seconds * (planned.num_tokens - done) / done if done else 0.0
    return WarmReport(
        num_passages=planned.num_present + len(planned.sequences),
        num_present=planned.num_present,
        num_read=num_read,
        num_tokens=planned.num_tokens,
        bytes_used=planned.bytes_present + done * planned.bytes_per_token,
        bytes_needed=planned.bytes_present + planned.num_tokens * planned.bytes_per_token,
        seconds=seconds,
        seconds_left=left,
    )


def _files(engine: Engine) -> PrefixFiles:
    if engine.store is None or engine.store.files is None:
        raise ConfigError("no files are written: set cache.enabled and cache.disk_mb")
    return engine.store.files


def _common(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    pairs = zip(one, other, strict=False)
    return tuple(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
