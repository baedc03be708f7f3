"""What lets a browser in, and tells it from others: the token, profiles, tickets to another one.

Pure but for the clock, what chance gives, and the one file of `kept_secret`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import re
import secrets
import tempfile
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

log = logging.getLogger(__name__)

PROFILE_COOKIE = "glm_rag_profile"
PROFILE_PATH = "/glm-rag/profile/"
_SECRET_BYTES = 32


def new_profile() -> str:
    """A profile that nobody can guess: 128 random bits."""
    return secrets.token_hex(16)


def is_profile(text: object) -> TypeGuard[str]:
    """Whether `text` can be the code of a profile."""
    return isinstance(text, str) and re.fullmatch("[0-9a-f]{32}", text) is not None


def kept_secret(path: Path) -> bytes:
    """The 32 random bytes in a file that only its owner reads; made if it is not there.

    Where nothing can be kept, they last as long as the server.
    """
    try:
        if len(kept := path.read_bytes()) == _SECRET_BYTES:
            return kept
    except OSError:
        pass
    made = secrets.token_bytes(_SECRET_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(made)
        Path(part).replace(path)
    except OSError as error:
        log.warning("browsers will have to show the token after each start: %s", error)
    return made


@dataclass(slots=True)
class Tickets:
    """Promises of another profile: the page gives one out, its browser redeems it once, soon."""

    seconds: float = 60.0
    open: dict[str, tuple[str, str, float]] = field(default_factory=dict)

    def issue(self, profile: str, holder: str) -> str:
        """The address, below the page's own, that puts `profile` into a browser's cookie.

        It works only where the cookie names `holder`: nobody can be led into the profile of
        somebody else, who would then read along.
        """
        now = time.monotonic()
        self.open = {name: kept for name, kept in self.open.items() if kept[2] > now}
        name = secrets.token_urlsafe(16)
        self.open[name] = (profile, holder, now + self.seconds)
        return PROFILE_PATH + name

    def redeem(self, name: str, holder: str | None) -> str | None:
        """The profile of a ticket that was issued to `holder`, is fresh and was not used before."""
        profile, issued_to, until = self.open.pop(name, ("", "", 0.0))
        return profile if until > time.monotonic() and issued_to == holder else None


tickets = Tickets()


@dataclass(slots=True)
class Doorkeeper:
    """Tells right from wrong tokens; who guessed wrong waits before the next guess is looked at.

    Guesses from one address wait for each other, so asking many times at once is no faster.
    Passes need the `secret` besides: otherwise whoever guesses a token could make the pass of his
    guess and show that, as often and as fast as he likes.
    """

    token: str
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(_SECRET_BYTES))
    delay: float = 0.5
    waiting: int = 5
    longest: float = 30.0
    failures: OrderedDict[str, int] = field(default_factory=OrderedDict)
    turns: dict[str, asyncio.Lock] = field(default_factory=dict)
    queues: dict[str, int] = field(default_factory=dict)

    def pass_(self) -> str:
        """What a browser keeps instead of the token: it opens the page, but does not tell it."""
        return hmac.new(self.secret, self.token.encode(), hashlib.sha256).hexdigest()

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
