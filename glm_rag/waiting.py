"""A line of callers for what only so many may use at once, first come, first served."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class WaitingLine:
    """Whoever joins gets a ticket; leaving the block gives the place up, in line or in use.

    Args:
        places: how many may be served at once.
    """

    def __init__(self, places: int = 1) -> None:
        if places < 1:
            raise ValueError(f"places must be at least 1, got {places}")
        self._places = places
        self._moved = threading.Condition()
        self._tickets: list[Ticket] = []

    @contextmanager
    def join(self) -> Iterator[Ticket]:
        """Take the last place of the line.

        Example:
            with line.join() as ticket:
                while not ticket.wait(1.0):
                    print(f"{ticket.ahead} before you")
        """
        ticket = Ticket(self)
        with self._moved:
            self._tickets.append(ticket)
        try:
            yield ticket
        finally:
            with self._moved:
                self._tickets.remove(ticket)
                self._moved.notify_all()

    def _ahead(self, ticket: Ticket) -> int:
        if ticket not in self._tickets:
            raise RuntimeError("this ticket has left its line: join again")
        return max(0, self._tickets.index(ticket) + 1 - self._places)


class Ticket:
    """A place in a `WaitingLine`, made by its `join`. Any thread may ask it."""

    def __init__(self, line: WaitingLine) -> None:
        self._line = line

    @property
    def ahead(self) -> int:
        """How many have to leave before it is this one's turn; 0: it is."""
        with self._line._moved:
            return self._line._ahead(self)

    def wait(self, seconds: float) -> bool:
        """Wait for the turn at most so long; whether it has come.

        Raises:
            RuntimeError: the ticket's block has ended, before or meanwhile.
        """
        line = self._line
        with line._moved:
            return line._moved.wait_for(lambda: line._ahead(self) == 0, timeout=seconds)
