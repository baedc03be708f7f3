"""The last answers from documents, found again by the conversation that a client sends back.

Clients send texts. An answer that is remembered also has the passages that the model read and the
ids that it wrote, so the follow-up's prompt goes on where the last one ended: passages are not
repeated, and what was computed for them serves again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence

from glm_rag.types import Answer

_MOST = 256


class Memory:
    """At most so many answers, the last used ones. Any thread may use it.

    Nothing comes back that was not said to the same owner, about the same knowledge base, in
    exactly these words.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()

    def find(self, place: Sequence[str], texts: Sequence[tuple[str, str]]) -> Answer | None:
        """The answer that ends a conversation of (role, text), if it is remembered.

        Args:
            place: whose conversation it is, with which knowledge base and model.
        """
        key = _key(place, texts)
        with self._lock:
            found = self._answers.get(key)
            if found is not None:
                self._answers.move_to_end(key)
            return found

    def keep(self, place: Sequence[str], texts: Sequence[tuple[str, str]], answer: Answer) -> None:
        """Remember an answer, by the conversation that it ends."""
        with self._lock:
            self._answers[_key(place, texts)] = answer
            while len(self._answers) > self._most:
                self._answers.popitem(last=False)


def _key(place: Sequence[str], texts: Sequence[tuple[str, str]]) -> bytes:
    said = [(role, text.strip()) for role, text in texts]
    return hashlib.sha256(json.dumps([list(place), said]).encode()).digest()
