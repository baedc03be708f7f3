"""The citations of a saved answer against the documents of today."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from glm_rag.knowledge.verifying.mends import Findings
from glm_rag.types import VerifyFinding


def verify_citations(
    citations: Sequence[Mapping[str, Any]],
    read: Callable[[Mapping[str, Any]], str],
) -> Findings:
    """Which citations of a saved answer do not open to their quote any more.

    Args:
        citations: as `glm-rag ask --json` prints them.
        read: the characters that a citation names now, empty where there are none.
    """
    for number, citation in enumerate(citations, 1):
        found, quote = read(citation), citation["quote"]
        if found == quote:
            continue
        where = f"citation {number}, characters {citation['start']} to {citation['end']}"
        problem = f"{where}: the document does not say {quote[:80]!r} there any more"
        yield VerifyFinding("citation", str(citation["source"]), problem, "ask again")
