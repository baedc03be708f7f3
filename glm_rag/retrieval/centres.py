"""What all questions of a language share, taken from a question that searches the other language.

Some passages (tables, names, scenes of a novel) are near to every question of the other language.
The mean vector of questions in a language says which: with half of it subtracted, Chinese
questions find the right English paragraph among ten times as many others in 67 % instead of 50 %
(benchmarks/language_centre.py). Within one language it does harm, so it is not done there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files

import numpy as np

from glm_rag.errors import ConfigError
from glm_rag.types import Language

# The whole mean is better at noticing other domains, and loses right passages.
SHARE = 0.5


def shipped_centres(file: str) -> dict[Language, tuple[float, ...]]:
    """Centres beside this module, made by `benchmarks/fit_centres.py`."""
    values = json.loads(files(__package__).joinpath(file).read_text("utf-8"))
    return {"en": tuple(values["en"]), "zh": tuple(values["zh"])}


def vectors_across(
    vector: np.ndarray, language: Language, centre: Mapping[Language, tuple[float, ...]]
) -> dict[Language, np.ndarray]:
    """What documents of other languages than the question's are searched by.

    Args:
        vector: of the question, `[dimension]`, any length but 0.
        language: of the question.
        centre: by language; without one for the question's, there is nothing to move.

    Returns:
        By language of the documents. Not of length 1: so cosines of the other language vary as
        much as those of the question's own, and can be compared with them (made longer, unrelated
        passages of a mixed knowledge base come before right ones).

    Raises:
        ConfigError: the centre has another dimension.
    """
    shared = centre.get(language)
    if shared is None:
        return {}
    if len(shared) != len(vector):
        raise ConfigError(
            f"the calibration's `centre` has {len(shared)} numbers and the embedder's vectors have "
            f"{len(vector)}: fit another with glm-rag eval DATASET --kb NAME --calibrate --apply"
        )
    unit = vector / (np.linalg.norm(vector) or 1.0)
    moved = (unit - SHARE * np.asarray(shared)).astype(np.float32)
    return {other: moved for other in centre if other != language}
