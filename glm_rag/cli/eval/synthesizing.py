"""Make questions from the documents of a knowledge base."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_rag.cli.common import console, print_json
from glm_rag.cli.eval.showing import tracked
from glm_rag.cli.eval.variants import Variant
from glm_rag.errors import ConfigError
from glm_rag.settings import Settings

if TYPE_CHECKING:
    from glm_rag.evaluation.synthesize import Fact

# A question is short; a small model that goes on is only slow.
_QUESTION_TOKENS = 64


def write_questions(variant: Variant, out: Path, count: int, seed: int, *, json: bool) -> None:
    """Write up to `count` questions with their answers to the file `out`.

    Raises:
        ConfigError: no sentence of the documents can be asked for, or the file cannot be written.
    """
    from glm_rag.build import open_for_questions
    from glm_rag.evaluation.datasets import write_csv
    from glm_rag.evaluation.synthesize import synthesize

    settings = variant.settings(generation__max_tokens=_QUESTION_TOKENS)
    rewrite = _rewriter(settings) if variant.model else None
    with open_for_questions(settings, variant.kb) as kb:
        documents = kb.documents()
        random.Random(seed).shuffle(documents)
        texts = [(d.source, kb.get_text(d.source)) for d in documents[: 2 * count]]
    made = synthesize(texts, count, seed=seed, rewrite=rewrite)
    questions = list(tracked(made, "writing questions", count))
    if not questions:
        raise ConfigError(
            f"no sentence of knowledge base {variant.kb!r} states a number, a date or a name that "
            "could be asked for: write questions by hand, as rows of question, answer, source"
        )
    write_csv(out, questions)
    if json:
        print_json({"questions": len(questions), "file": str(out)})
        return
    console.print(
        f"{len(questions)} questions in {out}. They share their words with the documents: use "
        "them to compare settings, not to judge how well real questions are answered."
    )


def _rewriter(settings: Settings) -> Any:
    from glm_rag.build import build_llm, llm_name
    from glm_rag.evaluation.synthesize import first_question, prompt_for
    from glm_rag.models.registry import reads
    from glm_rag.text import detect_language

    llm = build_llm(settings)

    def rewrite(fact: Fact) -> str:
        if not reads(llm_name(settings), detect_language(fact.sentence)):
            return ""
        return first_question(str(llm.invoke(prompt_for(fact)).text))

    return rewrite
