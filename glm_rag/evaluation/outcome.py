"""What one question gave, and the file that keeps it, so that a long run can be resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from glm_rag.errors import ConfigError
from glm_rag.types import Language


@dataclass(frozen=True, slots=True)
class Evidence:
    """How sure the retriever is of the first passage that is left in one case.

    Attributes:
        margin: 0 or more is enough to answer; None where nothing is left.
        probability: that it answers, by the knowledge base's calibration; None across languages,
            where the margin is no logit.
    """

    margin: float | None
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class AnswerOutcome:
    """Figures of one generated answer. Citations count where the right passage is known."""

    text: str
    abstained: bool
    reason: str
    exact_match: float
    f1: float
    contains: float
    num_citations: int
    num_right_citations: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one question gave.

    Attributes:
        answerable: as far as is known, the knowledge base holds what answers.
        has_answers: the data set gives the answer's text.
        relevance: of each passage found, best first, whether it is right.
        present, hard, easy: evidence with everything there, with the right passages taken away,
            and with all of their article or document taken away. None: not measured.
        timings: seconds by step.
    """

    id: str
    question: str
    language: Language
    group: str
    answerable: bool
    has_answers: bool
    relevance: tuple[bool, ...]
    present: Evidence | None = None
    hard: Evidence | None = None
    easy: Evidence | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    answer: AnswerOutcome | None = None


class OutcomeFile:
    """Outcomes as lines of JSON, behind a line that says which run they are of.

    A killed run loses the question it was at; the next one goes on with the rest.

    Raises:
        ConfigError: the file is of another run, or cannot be read or written.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self.path = path
        try:
            lines = _whole_lines(path)
            if lines and _parse(path, 1, lines[0]) != {"run": run}:
                raise ConfigError(
                    f"{path} holds the questions of another run: choose another --out, or delete "
                    "the file"
                )
            self.done = [_outcome(path, n, line) for n, line in enumerate(lines[1:], start=2)]
            self._file = path.open("a", encoding="utf-8")
            if not lines:
                self._write({"run": run})
        except OSError as error:
            raise ConfigError(f"cannot use {path}: {error.strerror or error}") from error

    def append(self, outcome: Outcome) -> None:
        """Keep one more."""
        self._write(asdict(outcome))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def _write(self, value: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(value, ensure_ascii=False) + "\n")
        self._file.flush()


def _whole_lines(path: Path) -> list[str]:
    """All lines; one that a killed run left unfinished is cut off the file."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    return whole.decode("utf-8", "replace").splitlines()


def _parse(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}, line {number}: not JSON; delete the file") from error


def _outcome(path: Path, number: int, line: str) -> Outcome:
    data = _parse(path, number, line)
    try:
        for case in ("present", "hard", "easy"):
            data[case] = None if data[case] is None else Evidence(**data[case])
        answer = data["answer"]
        data["answer"] = None if answer is None else AnswerOutcome(**answer)
        return Outcome(**{**data, "relevance": tuple(data["relevance"])})
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}, line {number}: no finished question; delete the file"
        ) from error
