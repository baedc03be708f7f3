"""Where a run stands, how fast it is, and how long it will still take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from glm_rag.types import IngestProgress
from glm_rag_ingest.discover import FoundFile

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
        if self._marks and self._marks[-1][1:] == (num_embedded, bytes_done):
            return  # a batch is on its way: the rate is that between batches
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


class Tracker:
    """Adds up files, bytes and passages, and tells of them.

    Args:
        tell: gets the state whenever it is asked for; None: nobody listens.
    """

    def __init__(self, tell: Callable[[IngestProgress], None] | None) -> None:
        self._listener = tell
        self._started = time.perf_counter()
        self._pace = Pace()
        self._total = self._bytes_total = 0
        self._done = self._bytes_done = 0
        self._bytes_read = 0
        self._num_to_embed = 0
        self._shares: dict[str, tuple[float, int]] = {}  # of files in work: part done, bytes
        self._current = ""
        self.num_chunks = 0
        self.num_embedded = 0

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.perf_counter() - self._started

    def begin(self, total: int, bytes_total: int) -> None:
        """So many files, of so many bytes, were found."""
        self._total, self._bytes_total = total, bytes_total

    def skip(self, file: FoundFile) -> None:
        """A file needs no work at all."""
        self._done += 1
        self._bytes_done += file.size
        self._bytes_read += file.size

    def reads(self, file: FoundFile) -> None:
        """A file has been read."""
        self._current = str(file.path)
        self._bytes_read += file.size
        self._shares[file.source] = 0.0, file.size

    def finds(self, file: FoundFile, num_missing: int) -> None:
        """A file that was read has so many passages to embed."""
        self._pace.has_read(file.size, num_missing)
        self._num_to_embed += num_missing

    def embeds(self, file: FoundFile, share: float) -> None:
        """Of a file's passages this share has vectors."""
        self._current = str(file.path)
        self._shares[file.source] = share, file.size

    def finish(self, file: FoundFile) -> None:
        """A file is stored, or has failed."""
        self._shares.pop(file.source, None)
        self._done += 1
        self._bytes_done += file.size

    def end(self) -> None:
        """The run is over."""
        self._current = ""
        self.tell()

    def tell(self) -> None:
        """Let the listener know."""
        if self._listener is None:
            return
        seconds = self.seconds
        bytes_done = self._bytes_done + sum(int(a * b) for a, b in self._shares.values())
        self._pace.mark(seconds, self.num_embedded, bytes_done)
        left = self._pace.seconds_left(
            max(0, self._num_to_embed - self.num_embedded),
            self._bytes_total - self._bytes_read,
            self._bytes_total - bytes_done,
        )
        self._listener(
            IngestProgress(
                self._done,
                self._total,
                bytes_done,
                self._bytes_total,
                self._current,
                self.num_chunks,
                seconds,
                self.num_embedded,
                self._pace.rate,
                left,
            )
        )
