"""One connection to each Milvus for short questions: which knowledge bases there are, since when.

A server asks them with every request. Whoever opens a knowledge base has a connection of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from glm_rag.errors import KnowledgeBaseError, KnowledgeBaseNotFoundError
from glm_rag.knowledge.milvus.client import Milvus
from glm_rag.knowledge.milvus.naming import Location

# By process, too: a connection does not survive a fork.
_kept: dict[tuple[int, Location], Milvus] = {}
_lock = threading.Lock()
# What hangs is not waited for: many ask.
_SECONDS = 10.0


@contextmanager
def asking(location: Location) -> Iterator[Milvus]:
    """A connection that is there for the next one, too; do not close it. Any thread may use it.

    After an error inside the next one gets a new connection.

    Raises:
        ConfigError, KnowledgeBaseError: as `Location.connect`.
    """
    milvus = _connection(location)
    try:
        yield milvus
    except KnowledgeBaseNotFoundError:
        raise
    except KnowledgeBaseError:
        with _lock:
            if _kept.get((os.getpid(), location)) is milvus:
                del _kept[os.getpid(), location]
        # Not closed: another thread may be asking with it. It goes with its last user.
        raise


def close() -> None:
    """Let go of all connections; the next question makes new ones."""
    with _lock:
        mine = [key for key in _kept if key[0] == os.getpid()]
        connections = [_kept.pop(key) for key in mine]
    for milvus in connections:
        milvus.close()


def _connection(location: Location) -> Milvus:
    key = os.getpid(), location
    with _lock:
        known = _kept.get(key)
    if known is not None:
        return known
    made = location.connect(seconds=_SECONDS)  # may take as long
    with _lock:
        known = _kept.setdefault(key, made)
    if known is not made:
        made.close()
    return known
