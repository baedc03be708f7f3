"""A line of callers for what only so many may use at once."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

# Seconds that a place is kept, before any was given back, and how much each one counts after.
_FIRST_GUESS = 10.0
_WEIGHT = 0.2
_LONGEST_RETRY = 600


class LineFullError(Exception):
    """All places are in use and all seats taken.

    Attributes:
        retry_after: whole seconds after which a place is likely to be free.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"all places are in use: try again in {retry_after} s")
        self.retry_after = retry_after


class LineClosedError(Exception):
    """Nobody is served any more."""


class FairLine:
    """A line of several owners who take turns, with so many places and so many seats for waiting.

    Owners who wait are served in turn, one ticket each, so that one with a hundred requests does
    not keep out another with one. Tickets of one owner are served first come, first served.
    Any thread may use it.

    Args:
        places: how many are served at once.
        seats: how many may wait, by default any number; 0: nobody waits.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        places: int,
        seats: float = math.inf,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if places < 1 or seats < 0:
            raise ValueError(f"a line needs a place and no less than 0 seats: {places}, {seats}")
        self.places = places
        self.seats = seats
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[FairTicket]] = {}  # in the order of the owners' turns
        self._num_running = 0
        self._mean_seconds = _FIRST_GUESS
        self._closed = False

    @property
    def num_running(self) -> int:
        """Tickets that are being served."""
        return self._num_running

    @property
    def num_waiting(self) -> int:
        """Tickets in line."""
        with self._lock:
            return self._count()

    def enter(self, owner: str, on_turn: Callable[[], None] | None = None) -> FairTicket:
        """Take a place, or the owner's last place in line.

        Args:
            on_turn: called once when its turn comes or the line closes, by whatever thread
                brings that about; not called where the turn has come already.

        Raises:
            LineFullError: nobody more may wait. LineClosedError: nobody is served any more.
        """
        with self._lock:
            if self._closed:
                raise LineClosedError("the line is closed")
            ticket = FairTicket(self, owner, on_turn)
            if self._num_running < self.places and not self._waiting:
                self._serve(ticket)
            elif self._count() < self.seats:
                self._waiting.setdefault(owner, deque()).append(ticket)
            else:
                raise LineFullError(self._estimate(self._count() + 1))
            return ticket

    def close(self) -> None:
        """Serve nobody more; whoever waits is told, whoever is served stays."""
        with self._lock:
            self._closed = True
            told = [ticket for queue in self._waiting.values() for ticket in queue]
            self._waiting.clear()
            for ticket in told:
                ticket.state = "refused"
        _tell(told)

    def _leave(self, ticket: FairTicket) -> None:
        with self._lock:
            told = []
            if ticket.state == "served":
                self._num_running -= 1
                took = self._clock() - ticket.since
                self._mean_seconds += _WEIGHT * (took - self._mean_seconds)
                told = self._fill()
            elif ticket.state == "waiting":
                queue = self._waiting[ticket.owner]
                queue.remove(ticket)
                if not queue:
                    del self._waiting[ticket.owner]
            ticket.state = "left"
        _tell(told)

    def _fill(self) -> list[FairTicket]:
        served = []
        while self._waiting and self._num_running < self.places:
            owner = next(iter(self._waiting))
            queue = self._waiting.pop(owner)
            ticket = queue.popleft()
            if queue:
                self._waiting[owner] = queue  # behind the others
            self._serve(ticket)
            served.append(ticket)
        return served

    def _serve(self, ticket: FairTicket) -> None:
        self._num_running += 1
        ticket.state = "served"
        ticket.since = self._clock()

    def _ahead(self, ticket: FairTicket) -> int:
        with self._lock:
            if ticket.state != "waiting":
                return 0
            own = self._waiting[ticket.owner].index(ticket)
            ahead, earlier = own + 1, True
            for owner, queue in self._waiting.items():
                if owner == ticket.owner:
                    earlier = False
                else:
                    ahead += min(len(queue), own + earlier)
            return ahead

    def _count(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _estimate(self, ahead: int) -> int:
        seconds = self._mean_seconds * ahead / self.places
        return max(1, min(math.ceil(seconds), _LONGEST_RETRY))


class FairTicket:
    """A place in a `FairLine`, made by its `enter`. Leave it, whatever happens.

    Attributes:
        state: `waiting`, `served`, `refused` (the line was closed) or `left`.
        since: when it was last moved, by the line's clock.
    """

    def __init__(self, line: FairLine, owner: str, on_turn: Callable[[], None] | None) -> None:
        self._line = line
        self._on_turn = on_turn
        self.owner = owner
        self.state: Literal["waiting", "served", "refused", "left"] = "waiting"
        self.since = line._clock()

    @property
    def ahead(self) -> int:
        """How many have to leave before it is this one's turn, if nobody new comes; 0: it is."""
        return self._line._ahead(self)

    def leave(self) -> None:
        """Give the place up, in line or in use; a second time does nothing."""
        self._line._leave(self)


def _tell(tickets: Sequence[FairTicket]) -> None:
    """Outside the lock: what is called may use the line."""
    for ticket in tickets:
        if ticket._on_turn is not None:
            ticket._on_turn()
