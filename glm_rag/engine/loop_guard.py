"""Notices that an answer says the same thing over and over.

One rule for token ids and for pieces of text: what stands at the end is one unit, repeated.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable

MAX_UNIT = 200  # items; a longer unit would fill an answer before it came back often enough
_LONG_UNIT = 32  # from here on three times are enough, below four
_LEAST_ITEMS = 32  # a short unit comes back more often, until it has covered so many items
# Rules (-----), leaders (.....) and columns of one value are layout, unless they never end.
_FEW_KINDS = 3
_LEAST_ITEMS_OF_FEW_KINDS = 128

# A Chinese character, a word, or a mark; white space does not count.
_PIECE = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+|[^\w\s]")

_END_MARKS = frozenset(".。!！?？;；…")


class LoopGuard:
    """Takes the items of an answer one by one, token ids or pieces of text."""

    def __init__(self, items: Iterable[Hashable] = ()) -> None:
        self._tail: list[Hashable] = []
        # Size of a unit to how many items at the end equal those one unit before.
        self._repeated: dict[int, int] = {}
        for item in items:
            self.push(item)

    def push(self, item: Hashable) -> bool:
        """Whether the answer, with this item, ends in a loop."""
        sizes = (size for size, old in enumerate(reversed(self._tail), 1) if old == item)
        self._repeated = {size: self._repeated.get(size, 0) + 1 for size in sizes}
        self._tail = [*self._tail[1 - MAX_UNIT :], item]
        return any(self._is_loop(size, items) for size, items in self._repeated.items())

    def surplus(self) -> int:
        """How many items at the end only repeat what stands before them; 0 below two units."""
        whole = (items for size, items in self._repeated.items() if items >= size)
        return max(whole, default=0)

    def _is_loop(self, size: int, repeated: int) -> bool:
        covered = size + repeated
        if covered < _LEAST_ITEMS or covered < size * (3 if size >= _LONG_UNIT else 4):
            return False
        few_kinds = len(set(self._tail[-size:])) <= _FEW_KINDS
        return not few_kinds or covered >= _LEAST_ITEMS_OF_FEW_KINDS


class TextLoopGuard:
    """The same for a streamed text, whatever its chunks: words, Chinese characters and marks."""

    def __init__(self) -> None:
        self._guard = LoopGuard()
        self._open = ""  # what the next chunk may continue

    def push(self, text: str) -> bool:
        """Whether the text so far ends in a loop."""
        text = self._open + text
        pieces = list(_PIECE.finditer(text))
        self._open = text[pieces.pop().start() :] if pieces else ""
        loops = [self._guard.push(piece.group()) for piece in pieces]
        return any(loops)


def without_loop(text: str) -> str:
    """A text that was broken off in a loop, with the repeated unit once."""
    pieces = list(_PIECE.finditer(text))
    # The break may have cut the last word, which then equals nothing.
    for end in (len(pieces), len(pieces) - 1):
        surplus = LoopGuard(piece.group() for piece in pieces[: max(end, 0)]).surplus()
        if surplus:
            # The mark that ends a unit may also stand before the first one.
            rest = pieces[end - surplus :]
            after = next((piece for piece in rest if piece.group() not in _END_MARKS), rest[-1])
            return text[: after.start()].rstrip()
    return text
