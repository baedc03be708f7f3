"""What every SQLite file here needs: opening, WAL among several processes, errors in words."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

BUSY_SECONDS = 30.0
_RETRY_SECONDS = 0.05


def connect(uri: str) -> sqlite3.Connection:
    """A connection for any thread, one at a time; transactions begin where the caller says."""
    return sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS
    )


def uri_of(path: Path) -> str:
    """The file as SQLite's URI, without parameters."""
    quoted = str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return f"file://{quoted}"


def use_wal(connection: sqlite3.Connection) -> None:
    """Switch a new file to WAL. SQLite does not wait here if another process switches too."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)


def migrate(connection: sqlite3.Connection, scripts: Sequence[str]) -> None:
    """Run the scripts that did not run yet, all in one transaction.

    `PRAGMA user_version` counts those that ran.
    """
    if _version(connection) >= len(scripts):
        return
    connection.execute("BEGIN EXCLUSIVE")
    for number in range(_version(connection), len(scripts)):
        for statement in _statements(scripts[number]):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number + 1}")
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """`executescript` would commit in between."""
    statement = ""
    for line in script.splitlines():
        statement += f"{line}\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name, None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else holds the file."""
    return code_of(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def explain(error: sqlite3.Error, path: Path, *, if_damaged: str) -> str:
    """One line that says what is wrong with the file and what to do."""
    code = code_of(error)
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return f"{path} is damaged ({error}): {if_damaged}"
    if is_busy(error):
        return f"another process has been writing to {path} for a long time: try again later"
    if code == sqlite3.SQLITE_FULL:
        return f"the disk of {path} is full: free some space and run again, nothing is lost"
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        return f"no permission to open {path} ({error}): change its owner or mode"
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_WRITE:
        return (
            f"cannot write more to {path}: check its disk, the quota and the limit on file sizes "
            "(ulimit -f) and run again, nothing is lost"
        )
    if code == sqlite3.SQLITE_IOERR:
        return f"the disk of {path} reports an error ({error}): check the disk and run again"
    return f"{path}: {error}"
