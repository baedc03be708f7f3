"""Token by token from ids to text, with stop strings that may cross token borders."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_REPLACEMENT = "\ufffd"


class Detokenizer:
    """Text of a growing list of ids; the pieces join to `decode` of all ids, however split.

    Only a short window is decoded again at each step. It starts at a token that has visible
    text of its own, because a leading space mark is dropped at the start of any decoded list.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._emitted = 0  # characters of the window's text already given out
        self.is_open = False  # whether the last ids are held back

    def push(self, token_id: int) -> str:
        """Text that became certain; a tail of U+FFFD is held back, it may be half a character."""
        self._window.append(token_id)
        text = self._decode(self._window)
        certain = len(text.rstrip(_REPLACEMENT))
        fresh = text[self._emitted : certain]
        self._emitted = max(self._emitted, certain)
        self.is_open = certain < len(text)
        if not self.is_open:
            self._shorten_window(token_id)
        return fresh

    def finish(self) -> str:
        """What was held back, incomplete characters as U+FFFD."""
        rest = self._decode(self._window)[self._emitted :]
        self._emitted += len(rest)
        self.is_open = False
        return rest

    def _shorten_window(self, last_id: int) -> None:
        alone = self._decode([last_id])
        if alone and _REPLACEMENT not in alone:
            self._window = [last_id]
            self._emitted = len(alone)


class StopFilter:
    """Passes text on up to the stop string completed first; holds back what may begin one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Text that certainly belongs to the answer; none behind a stop string."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [
            (text.find(stop) + len(stop), text.find(stop)) for stop in self._stop if stop in text
        ]
        if found:
            self._held, self.stopped = "", True
            _, start = min(found)
            return text[:start]
        keep = self._possible_start(text)
        self._held = text[keep:]
        return text[:keep]

    def finish(self) -> str:
        """What was held back and did not become a stop string."""
        rest, self._held = self._held, ""
        return rest

    def _possible_start(self, text: str) -> int:
        """Where the longest tail begins that is the start of a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        first = max(len(text) - longest, 0)
        tails = range(first, len(text))
        return next((at for at in tails if self._begins_stop(text[at:])), len(text))

    def _begins_stop(self, tail: str) -> bool:
        return any(stop.startswith(tail) for stop in self._stop)


class AnswerStream:
    """Detokenizer and stop filter in a row; ids come out together with their text."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str]) -> None:
        self._detokenizer = Detokenizer(decode)
        self._filter = StopFilter(stop)
        self._waiting: list[int] = []  # ids inside an unfinished character
        self._pending: list[tuple[int, int]] = []  # ids and where their text ends
        self._produced = 0
        self._released = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found; it and all behind it is left out."""
        return self._filter.stopped

    def push(self, token_id: int) -> tuple[str, tuple[int, ...]]:
        """Text and ids that now certainly belong to the answer."""
        self._waiting.append(token_id)
        return self._pass_on(self._detokenizer.push(token_id))

    def finish(self) -> tuple[str, tuple[int, ...]]:
        """What was held back, when no further id comes."""
        text, ids = self._pass_on(self._detokenizer.finish())
        if self.stopped:
            return text, ids
        text += self._filter.finish()
        rest_ids = tuple(token_id for token_id, _ in self._pending)
        self._pending = []
        return text, ids + rest_ids

    def _pass_on(self, fresh: str) -> tuple[str, tuple[int, ...]]:
        self._produced += len(fresh)
        if not self._detokenizer.is_open:
            self._pending += [(token_id, self._produced) for token_id in self._waiting]
            self._waiting = []
        text = self._filter.push(fresh)
        self._released += len(text)
        done = sum(end <= self._released for _, end in self._pending)
        ids = tuple(token_id for token_id, _ in self._pending[:done])
        del self._pending[:done]
        return text, ids
