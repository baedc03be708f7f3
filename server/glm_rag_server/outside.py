"""Questions to what may not answer: the store of knowledge bases, a model behind another server.

Each has threads of its own. One that hangs keeps those waiting who want it, and nobody else: with
shared threads a few of its questions would have kept even `/healthz` from being answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

T = TypeVar("T")
Where = Literal["store", "model"]

_THREADS = 8


class Outside:
    """Asks in threads. A question whose asker has left is not asked any more, if it still waits."""

    def __init__(self) -> None:
        self._threads = {
            where: ThreadPoolExecutor(_THREADS, thread_name_prefix=f"glm-rag-{where}")
            for where in ("store", "model")
        }

    async def ask(self, where: Where, call: Callable[..., T], *given: object) -> T:
        """What `call` gives, or raises."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads[where], call, *given)

    def close(self) -> None:
        """Ask nothing more; what has been asked is not waited for."""
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)
