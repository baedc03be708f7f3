"""How fast a run is, and how long it will still take."""

from __future__ import annotations

from collections import deque

_RECENT_SECONDS = 120.0  # passages take very unlike times, and so do files


class Pace:
    """Passages and bytes done, over time.

    The work of a file is that of embedding its passages, so time left is counted in passages:
    those that wait, and those that files not yet read will have if they are like the others. A
    run that embeds nothing (all vectors are known) goes by its bytes.
    """

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int, int]] = deque()  # seconds, passages, bytes
        self._read_bytes = 0
        self._read_chunks = 0

    def has_read(self, num_bytes: int, num_chunks: int) -> None:
        """A file of so many bytes gave so many passages to embed; 0 for one that failed."""
        self._read_bytes += num_bytes
        self._read_chunks += num_chunks

    def mark(self, seconds: float, num_embedded: int, bytes_done: int) -> None:
        """So much was done, so many seconds after the start."""
        self._marks.append((seconds, num_embedded, bytes_done))
        while len(self._marks) > 2 and self._marks[1][0] < seconds - _RECENT_SECONDS:
            self._marks.popleft()

    @property
    def rate(self) -> float:
        """Passages embedded per second, of late."""
        return self._per_second(1)

    def seconds_left(self, num_waiting: int, bytes_unread: int, bytes_left: int) -> float | None:
        """Estimate; None before anything was done.

        Args:
            num_waiting: passages read and not embedded.
            bytes_unread: of files that were not read yet.
            bytes_left: of files that are not stored yet.
        """
        if bytes_left <= 0 and not num_waiting:
            return 0.0
        if self.rate and self._read_bytes:
            unread = bytes_unread * self._read_chunks / self._read_bytes
            return (num_waiting + unread) / self.rate
        byte_rate = self._per_second(2)
        return bytes_left / byte_rate if byte_rate and not num_waiting else None

    def _per_second(self, what: int) -> float:
        if len(self._marks) < 2:
            return 0.0
        first, last = self._marks[0], self._marks[-1]
        seconds = last[0] - first[0]
        return (last[what] - first[what]) / seconds if seconds > 0 else 0.0
