"""What lets a browser in, and tells it from others: the token, profiles, tickets to another one.

Pure but for the clock and for what chance gives.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TypeGuard

PROFILE_COOKIE = "glm_rag_profile"
PROFILE_PATH = "/glm-rag/profile/"


def new_profile() -> str:
    """A profile that nobody can guess: 128 random bits."""
    return secrets.token_hex(16)


def is_profile(text: object) -> TypeGuard[str]:
    """Whether `text` can be the code of a profile."""
    return isinstance(text, str) and re.fullmatch("[0-9a-f]{32}", text) is not None


@dataclass(slots=True)
class Tickets:
    """Promises of another profile: the page gives one out, a browser redeems it once, soon."""

    seconds: float = 60.0
    open: dict[str, tuple[str, float]] = field(default_factory=dict)

    def issue(self, profile: str) -> str:
        """The address, below the page's own, that puts `profile` into the browser's cookie."""
        now = time.monotonic()
        self.open = {name: kept for name, kept in self.open.items() if kept[1] > now}
        name = secrets.token_urlsafe(16)
        self.open[name] = (profile, now + self.seconds)
        return PROFILE_PATH + name

    def redeem(self, name: str) -> str | None:
        """The profile of a ticket that was issued, is fresh and was not used before."""
        profile, until = self.open.pop(name, ("", 0.0))
        return profile if until > time.monotonic() else None


tickets = Tickets()


@dataclass(slots=True)
class Doorkeeper:
    """Tells right from wrong tokens; who guessed wrong waits before the next guess is looked at.

    Guesses from one address wait for each other, so asking many times at once is no faster.
    """

    token: str
    delay: float = 0.5
    waiting: int = 5
    longest: float = 30.0
    failures: OrderedDict[str, int] = field(default_factory=OrderedDict)
    turns: dict[str, asyncio.Lock] = field(default_factory=dict)
    queues: dict[str, int] = field(default_factory=dict)

    def pass_(self) -> str:
        """What a browser keeps instead of the token: it opens the page, but does not tell it."""
        return hmac.new(self.token.encode(), b"glm-rag page v1", hashlib.sha256).hexdigest()

    def knows(self, kept: str | None) -> bool:
        """Whether a browser showed its token before, or none is needed."""
        return not self.token or hmac.compare_digest((kept or "").encode(), self.pass_().encode())

    async def is_right(self, token: str, address: str) -> bool:
        """Look at a guess; where too many of one address wait already, it counts as wrong."""
        queue = self.queues.get(address, 0)
        if queue >= self.waiting:
            return False
        self.queues[address] = queue + 1
        try:
            return await self._look(token, address)
        finally:
            self.queues[address] -= 1
            if not self.queues[address]:
                del self.queues[address]

    async def _look(self, token: str, address: str) -> bool:
        async with self.turns.setdefault(address, asyncio.Lock()):
            if failed := self.failures.get(address, 0):
                await asyncio.sleep(min(self.delay * 2 ** min(failed, 16), self.longest))
            right = hmac.compare_digest(token.encode(), self.token.encode())
            self._note(address, right)
            return right

    def _note(self, address: str, right: bool) -> None:
        failed = self.failures.pop(address, 0)
        if not right:
            self.failures[address] = failed + 1
        if len(self.failures) > 10_000:
            self.turns.pop(self.failures.popitem(last=False)[0], None)
        if address not in self.failures:
            self.turns.pop(address, None)
