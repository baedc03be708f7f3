"""Do citations find the sentence that supports an answer's, and only that?

    python benchmarks/citations_xquad.py [--answers N]

Answers are stitched together, so the truth is known: each is a few sentences, and each sentence is
taken from one of the packed passages as it stands (*verbatim*, with other case, width or
punctuation), from one of them in other words (*paraphrase*: clauses moved or dropped, words
replaced by synonyms), from a paragraph that the model did not read (*foreign*), or from a passage
with one number changed (*false number*).

Precision: of the sentences with a citation, those whose quote overlaps their origin. Recall: of the
sentences that have an origin among the passages, those so cited. Offsets: quotes that are the
characters of the document at their offsets. Numbers: changed ones that are flagged; unchanged ones
that are.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from support.record import options_over_data, print_table, save

from glm_rag.citations import align
from glm_rag.text import query_terms, sentence_spans
from glm_rag.types import Passage
from glm_rag.unsupported import find_unsupported

LANGUAGES = ("en", "zh")
KINDS = ("verbatim", "paraphrase", "foreign", "false number")
NUMBER = re.compile(r"(?<![\d.,])\d+(?:,\d{3})*(?:\.\d+)?(?![\d]|[.,]\d)")
LEAST_TERMS = 5

SYNONYMS = {
    "en": (
        "began=started large=big however=yet used=employed known=called important=significant "
        "several=some many=numerous built=constructed because=since often=frequently "
        "people=persons although=though main=chief begin=start help=assist made=produced "
        "shows=demonstrates received=got about=roughly during=throughout near=beside"
    ),
    "zh": (
        "开始=着手 但是=不过 因为=由于 使用=采用 重要=关键 许多=很多 大约=约 建立=设立 包括=包含 "
        "可以=能够 被称为=叫做 成为=变成 以及=和 通常=一般 目前=现在 主要=首要 然而=可是 获得=得到 "
        "认为=觉得 之间=间 超过=多于 城市=都市 非常=十分"
    ),
}


@dataclass(frozen=True, slots=True)
class Planted:
    """One sentence of an answer. `origin`: passage number and characters there, if it has any."""

    kind: str
    text: str
    origin: tuple[int, int, int] | None
    changed: str = ""


def paragraphs(data: Path, language: str) -> list[str]:
    content = json.loads((data / "xquad" / f"xquad.{language}.json").read_text("utf-8"))["data"]
    return [paragraph["context"] for article in content for paragraph in article["paragraphs"]]


def passage(index: int, text: str, offset: int) -> Passage:
    metadata = {"source": f"s{index}", "title": f"T{index}", "start": offset}
    document = Document(id=f"c{index}", page_content=text, metadata=metadata)
    return Passage(index=index, document=document, text=text, num_tokens=1)


def rewritten(text: str, language: str, rng: random.Random) -> str:
    """In other words, with every number, name and negation kept."""
    words = dict(pair.split("=") for pair in SYNONYMS[language].split())
    pattern = "|".join(words)
    pattern = rf"\b(?:{pattern})\b" if language == "en" else pattern
    text = re.sub(pattern, lambda match: words[match.group()], text)
    comma = ", " if language == "en" else "，"
    end = text[-1] if text[-1] in ".。!！" else ""
    clauses = text.removesuffix(end).split(comma)
    if len(clauses) > 1:
        moved = clauses.pop(0)
        clauses.append(moved)
    text = comma.join(clauses) + end
    if language == "en" and rng.random() < 0.5:
        text = re.sub(r" \([^()]*\)", "", text)
    return text


def varied(text: str, language: str, rng: random.Random) -> str:
    """The same words with other case, width or punctuation."""
    change: Callable[[str], str] = rng.choice(
        [str, str.lower, lambda t: t.replace("，", ",").replace("、", "､"), _wide_digits]
    )
    return change(text)


def _wide_digits(text: str) -> str:
    return text.translate({ord("0") + i: ord("０") + i for i in range(10)})


def with_false_number(text: str, context: str, rng: random.Random) -> tuple[str, str] | None:
    numbers = list(NUMBER.finditer(text))
    if not numbers:
        return None
    chosen = rng.choice(numbers)
    value = int(re.sub(r"\D", "", chosen.group())) + rng.randint(2, 97)
    if str(value) in re.sub(r"\D", " ", context).split():
        return None
    return text[: chosen.start()] + str(value) + text[chosen.end() :], str(value)


def sentence(
    kind: str,
    read: Sequence[Passage],
    unread: Sequence[str],
    language: str,
    rng: random.Random,
) -> Planted | None:
    """A planted sentence of that kind, None where the drawn one does not lend itself to it."""
    source = rng.choice(read)
    text = source.text if kind != "foreign" else rng.choice(unread)
    start, end = rng.choice(sentence_spans(text))
    drawn = text[start:end]
    if "\n" in drawn or len(query_terms(drawn)) < LEAST_TERMS or drawn[-1] not in ".。":
        return None
    origin = (source.index, start, end)
    if kind == "verbatim":
        return Planted(kind, varied(drawn, language, rng), origin)
    if kind == "paraphrase":
        return Planted(kind, rewritten(drawn, language, rng), origin)
    if kind == "foreign":
        return Planted(kind, drawn, None)
    changed = with_false_number(drawn, " ".join(p.text for p in read), rng)
    return Planted(kind, changed[0], None, changed[1]) if changed else None


def one_answer(
    texts: Sequence[str], language: str, rng: random.Random
) -> tuple[str, list[Planted], list[Passage]]:
    chosen = rng.sample(range(len(texts)), rng.randint(1, 4))
    read = [passage(i, texts[c], rng.randint(0, 5000)) for i, c in enumerate(chosen, start=1)]
    unread = [text for i, text in enumerate(texts) if i not in chosen]
    planted: list[Planted] = []
    for _ in range(rng.randint(1, 4)):
        found = sentence(rng.choice(KINDS), read, unread, language, rng)
        if found is not None:
            planted.append(found)
    return (" " if language == "en" else "").join(p.text for p in planted), planted, read


def judge(
    answer: str, planted: Sequence[Planted], read: Sequence[Passage], counts: Counter[str]
) -> None:
    citations = align(answer, read)
    flags = [f for f in find_unsupported(answer, read, citations) if f.kind == "number"]
    for citation in citations:
        document = read[citation.index - 1].document
        offset = document.metadata["start"]
        there = document.page_content[citation.start - offset : citation.end - offset]
        counts["quotes"] += 1
        counts["quotes at their offsets"] += there == citation.quote
    position = 0
    for item in planted:
        start = answer.index(item.text, position)
        end = position = start + len(item.text)
        mine = [c for c in citations if c.answer_start < end and c.answer_end > start]
        flagged = any(f.start < end and f.end > start for f in flags)
        counts[item.kind] += 1
        counts[f"{item.kind}: cited"] += bool(mine)
        counts[f"{item.kind}: right"] += any(_overlaps(c, item, read) for c in mine)
        counts[f"{item.kind}: flagged"] += flagged


def _overlaps(citation: Any, item: Planted, read: Sequence[Passage]) -> bool:
    if item.origin is None or citation.index != item.origin[0]:
        return False
    offset = read[citation.index - 1].document.metadata["start"]
    return citation.start - offset < item.origin[2] and citation.end - offset > item.origin[1]


def summary(counts: Counter[str]) -> dict[str, Any]:
    cited = sum(counts[f"{kind}: cited"] for kind in KINDS)
    right = sum(counts[f"{kind}: right"] for kind in KINDS)
    origins = counts["verbatim"] + counts["paraphrase"]
    true_numbers = sum(counts[f"{kind}: flagged"] for kind in ("verbatim", "paraphrase"))
    return {
        "sentences": sum(counts[kind] for kind in KINDS),
        "precision": round(right / cited, 4),
        "recall": round(right / origins, 4),
        "recall verbatim": round(counts["verbatim: right"] / counts["verbatim"], 4),
        "recall paraphrase": round(counts["paraphrase: right"] / counts["paraphrase"], 4),
        "foreign cited": round(counts["foreign: cited"] / counts["foreign"], 4),
        "false number cited": round(counts["false number: cited"] / counts["false number"], 4),
        "false number flagged": round(counts["false number: flagged"] / counts["false number"], 4),
        "true sentence flagged": round(true_numbers / origins, 4),
        "quotes": counts["quotes"],
        "quotes at their offsets": counts["quotes at their offsets"],
    }


def main() -> None:
    parser = options_over_data(__doc__, vectors=False)
    parser.add_argument("--answers", type=int, default=10_000)
    options = parser.parse_args()
    rows, started = [], time.perf_counter()
    for language in LANGUAGES:
        texts, rng, counts = paragraphs(options.data, language), random.Random(7), Counter[str]()
        for _ in range(options.answers // len(LANGUAGES)):
            judge(*one_answer(texts, language, rng), counts)
        rows.append({"language": language, **summary(counts)})
    seconds = round(time.perf_counter() - started, 1)
    save(
        options.out,
        "citations_xquad",
        ["langchain-core", "opencc"],
        {"answers": options.answers, "seconds": seconds, "rows": rows},
    )
    print_table(rows)


if __name__ == "__main__":
    main()
