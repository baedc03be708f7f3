"""Answers between the event loop and the threads that compute them.

An answer is an iterator that a thread runs; its items come to the coroutine in a queue. When a
client leaves, the model is told to end and the thread closes the iterator before its next item;
only then the place in line is given to the next one.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from glm_rag.breaker import Breaker
from glm_rag.waiting import FairLine, LineClosedError, LineFullError
from glm_rag_server.errors import ApiError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive

T = TypeVar("T")

# How often a client in line is told its position, and one without news that we live.
TELL_SECONDS = 1.0
ALIVE_SECONDS = 15.0


class ClientGone(Exception):
    """Nobody waits for the response any more."""


@dataclass(frozen=True, slots=True)
class Queued:
    """News for who waits: how many have to leave first."""

    ahead: int


@dataclass(frozen=True, slots=True)
class Alive:
    """No news, and still at work."""


@dataclass(frozen=True, slots=True)
class Began:
    """The place has come, after so many seconds in line."""

    waited: float


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


class Place:
    """A place in a line for a coroutine.

    Raises:
        ApiError: 429 with `Retry-After`, or 503 where the server is ending.
    """

    def __init__(self, line: FairLine, owner: str) -> None:
        loop = asyncio.get_running_loop()
        self._moved = asyncio.Event()

        def moved() -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._moved.set)

        try:
            self.ticket = line.enter(owner, moved)
        except LineFullError as error:
            raise too_many(error.retry_after) from error
        except LineClosedError as error:
            raise ending() from error

    async def wait(self, seconds: float) -> bool:
        """Wait for the turn at most so long; whether it has come."""
        if self.ticket.state == "waiting":
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._moved.wait()
        if self.ticket.state == "refused":
            raise ending()
        return self.ticket.state == "served"


class Work(Generic[T]):
    """An iterator that a thread runs.

    Args:
        make: makes it, in the thread, inside a `Breaker`.
        on_end: called when the thread has let go of it.
    """

    def __init__(
        self,
        threads: Executor,
        make: Callable[[], Generator[T, None, None]],
        on_end: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[T | _End] = asyncio.Queue()
        self._breaker = Breaker()
        run = contextvars.copy_context().run
        future = threads.submit(run, self._run, make)
        future.add_done_callback(lambda _future: on_end())

    async def items(self) -> AsyncGenerator[T | Alive, None]:
        """What it gives; closing this stops the thread at its next item."""
        try:
            while True:
                try:
                    async with asyncio.timeout(ALIVE_SECONDS):
                        item = await self._items.get()
                except TimeoutError:
                    yield Alive()
                    continue
                if isinstance(item, _End):
                    if item.error is not None:
                        raise item.error
                    return
                yield item
        finally:
            self._breaker.break_off()

    def _run(self, make: Callable[[], Generator[T, None, None]]) -> None:
        error: BaseException | None = None
        try:
            if not self._breaker.is_broken:
                with self._breaker.inside(), closing(make()) as items:
                    for item in items:
                        if self._breaker.is_broken:
                            return
                        self._put(item)
        except Exception as caught:  # noqa: BLE001 - the coroutine raises it
            error = caught
        self._put(_End(error))

    def _put(self, item: T | _End) -> None:
        try:
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)
        except RuntimeError:  # the loop has ended, and with it everyone who could read this
            self._breaker.break_off()


async def in_line(
    line: FairLine,
    owner: str,
    threads: Executor,
    make: Callable[[], Generator[T, None, None]],
) -> AsyncGenerator[Queued | Began | Alive | T, None]:
    """Wait for a place, then run an iterator in a thread.

    Raises:
        ApiError: as `Place`; and whatever the iterator raises.
    """
    place = Place(line, owner)
    entered = time.monotonic()
    work: Work[T] | None = None
    try:
        while not await place.wait(TELL_SECONDS):
            yield Queued(place.ticket.ahead)
        yield Began(time.monotonic() - entered)
        work = Work(threads, make, place.ticket.leave)
        items = work.items()
        try:
            async for item in items:
                yield item
        finally:
            await items.aclose()
    finally:
        if work is None:
            place.ticket.leave()


async def in_place(line: FairLine, owner: str, threads: Executor, call: Callable[[], T]) -> T:
    """Wait for a place, then call something short in a thread."""

    def make() -> Generator[T, None, None]:
        yield call()

    results: list[Any] = []
    stream = in_line(line, owner, threads, make)
    try:
        async for item in stream:
            if not isinstance(item, Queued | Began | Alive):
                results.append(item)
    finally:
        await stream.aclose()
    result: T = results[0]
    return result


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client leaves.

    Raises:
        ClientGone: it left.
    """
    result = await first_of(work, gone(request.receive))
    if result is None:
        raise ClientGone
    return result[0]


async def first_of(work: Coroutine[Any, Any, T], end: Coroutine[Any, Any, None]) -> tuple[T] | None:
    """The result of `work`; None if `end` came first, and `work` was cancelled."""
    working, ending_ = asyncio.ensure_future(work), asyncio.ensure_future(end)
    try:
        await asyncio.wait({working, ending_}, return_when=asyncio.FIRST_COMPLETED)
        return (working.result(),) if working.done() else None
    finally:
        for task in (working, ending_):
            await _cancelled(task)


async def gone(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(task: Awaitable[Any]) -> None:
    future = asyncio.ensure_future(task)
    if not future.done():
        future.cancel()
        await asyncio.wait({future})
    if not future.cancelled():
        future.exception()  # seen, so that asyncio does not complain


def too_many(retry_after: int) -> ApiError:
    """The error for who comes when all places and seats are taken."""
    return ApiError(
        429,
        f"everything is in use and the queue is full: try again in {retry_after} s",
        code="queue_full",
        headers={"Retry-After": str(retry_after)},
    )


def ending() -> ApiError:
    """The error for who comes when the server ends."""
    return ApiError(
        503, "the server is ending: try again", code="ending", headers={"Retry-After": "5"}
    )
