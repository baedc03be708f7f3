"""Questions with known answers, read from SQuAD-style JSON or from rows of a table.

SQuAD v1.1 and v2 (`is_impossible`), CSV and TSV with a header, JSONL, or a JSON list of rows. A
row has `question` and may have `answer`, `source` and `passage` (the text that answers); one
with none of the three has no answer in the documents.
"""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm_rag.errors import ConfigError
from glm_rag.text import detect_language
from glm_rag.types import Language

_COLUMNS = ("question", "answer", "source", "passage")


@dataclass(frozen=True, slots=True)
class Question:
    """A question of a data set.

    Attributes:
        id: where it stands in the file (`row 7`, or article, paragraph and question by number).
        answers: texts that count as right; empty where none is known.
        paragraph: the text that answers it; empty where it is not known.
        source: the document that answers it, by name; empty where it is not known.
        group: questions of one group are about the same matter (an article, a document).
        answerable: false where the data set says that nothing answers it.
    """

    id: str
    text: str
    answers: tuple[str, ...] = ()
    paragraph: str = ""
    source: str = ""
    group: str = ""
    answerable: bool = True

    @property
    def language(self) -> Language:
        """Of the question itself."""
        return detect_language(self.text)


def read_dataset(path: Path) -> list[Question]:
    """All questions of a file, by its suffix: .json, .jsonl, .csv or .tsv.

    Raises:
        ConfigError: it cannot be read, or a row of it is wrong; the message names the row.
    """
    suffix = path.suffix.lower()
    if suffix not in {".json", ".jsonl", ".csv", ".tsv"}:
        raise ConfigError(f"{path}: a data set is a .json, .jsonl, .csv or .tsv file")
    text = _read(path)
    if suffix == ".json":
        questions = list(_of_json(path, text))
    elif suffix == ".jsonl":
        questions = [_of_row(path, n, row) for n, row in _json_lines(path, text)]
    else:
        questions = list(_of_table(path, text, "," if suffix == ".csv" else "\t"))
    if not questions:
        raise ConfigError(f"{path} holds no question")
    return questions


def choose(questions: Sequence[Question], limit: int | None, seed: int | None) -> list[Question]:
    """The first `limit` questions, with a seed that many at random; in the file's order."""
    if limit is None or limit >= len(questions):
        return list(questions)
    if seed is None:
        return list(questions[:limit])
    places = random.Random(seed).sample(range(len(questions)), limit)
    return [questions[place] for place in sorted(places)]


def write_csv(path: Path, questions: Sequence[Question]) -> None:
    """Write questions as rows that `read_dataset` reads.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            for question in questions:
                answer = question.answers[0] if question.answers else ""
                writer.writerow((question.text, answer, question.source, question.paragraph))
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read the data set {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from error


def _parsed(path: Path, text: str, line: int = 0) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        line = line or getattr(error, "lineno", 1)
        reason = getattr(error, "msg", "nested too deeply")
        raise ConfigError(f"{path}, line {line}: not JSON ({reason})") from error


# ---------------------------------------------------------------- rows


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _parsed(path, line, number)


def _of_table(path: Path, text: str, delimiter: str) -> Iterator[Question]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    number = 0
    try:
        for number, cells in enumerate(reader, start=1):
            if number == 1:
                header = [cell.strip().casefold() for cell in cells]
                if "question" not in header:
                    named = ", ".join(cell for cell in header if cell) or "none"
                    raise ConfigError(
                        f"{path}, row 1: no column `question` in the header (columns: {named})"
                    )
            elif any(cell.strip() for cell in cells):
                if len(cells) > len(header):
                    raise ConfigError(
                        f"{path}, row {number}: {len(cells)} cells under {len(header)} columns; "
                        "quote a cell that holds the separator"
                    )
                yield _of_row(path, number, dict(zip(header, cells, strict=False)))
    except csv.Error as error:
        raise ConfigError(f"{path}, row {number + 1}: {error}") from error


def _of_row(path: Path, number: int, row: Any) -> Question:
    where = f"{path}, row {number}"
    if not isinstance(row, dict):
        raise ConfigError(f'{where}: must be an object such as {{"question": "..."}}')
    text = _text(where, row, "question")
    if not text:
        raise ConfigError(f"{where}: `question` is empty")
    source, paragraph = _text(where, row, "source"), _text(where, row, "passage")
    answers = _answers(where, row.get("answer"))
    return Question(
        id=f"row {number}",
        text=text,
        answers=answers,
        paragraph=paragraph,
        source=source,
        group=source or paragraph or f"row {number}",
        answerable=bool(answers or source or paragraph),
    )


def _text(where: str, row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ConfigError(f"{where}: `{key}` must be text, got {type(value).__name__}")
    return value.strip()


def _answers(where: str, value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | int | float | None) for item in values):
        raise ConfigError(f"{where}: `answer` must be text or a list of texts")
    texts = (str(item).strip() for item in values if item is not None)
    return tuple(dict.fromkeys(text for text in texts if text))


# ---------------------------------------------------------------- SQuAD


def _of_json(path: Path, text: str) -> Iterator[Question]:
    content = _parsed(path, text)
    if isinstance(content, list):
        for number, row in enumerate(content, start=1):
            yield _of_row(path, number, row)
        return
    where = str(path)
    for i, article in enumerate(_list(where, content, "data"), start=1):
        here = f"{where}, article {i}"
        for j, paragraph in enumerate(_list(here, article, "paragraphs"), start=1):
            within = f"{here}, paragraph {j}"
            context = _needed(within, paragraph, "context")
            for n, qa in enumerate(_list(within, paragraph, "qas"), start=1):
                at = f"{within}, question {n}"
                yield Question(
                    id=f"{i}.{j}.{n}",
                    text=_needed(at, qa, "question"),
                    answers=_gold(at, qa),
                    paragraph=context,
                    group=f"article {i}",
                    answerable=not qa.get("is_impossible", False),
                )


def _list(where: str, parent: Any, key: str) -> list[Any]:
    value = parent.get(key) if isinstance(parent, dict) else None
    if not isinstance(value, list):
        raise ConfigError(f"{where}: no list `{key}`, as SQuAD has it")
    return value


def _needed(where: str, parent: Any, key: str) -> str:
    if not isinstance(parent, dict):
        raise ConfigError(f"{where}: must be an object with `{key}`")
    value = _text(where, parent, key)
    if not value:
        raise ConfigError(f"{where}: no `{key}`")
    return value


def _gold(where: str, qa: dict[str, Any]) -> tuple[str, ...]:
    if qa.get("is_impossible", False):
        return ()
    answers = _list(where, qa, "answers")
    texts = [_needed(f"{where}, answer {n}", answer, "text") for n, answer in enumerate(answers, 1)]
    return tuple(dict.fromkeys(texts))
