"""API keys: made once, kept as hashes, looked up at every request.

A key is 256 random bits, so its plain SHA-256 cannot be searched for: slow hashes are for secrets
that people think up. Only the hash is stored, in a file that only its owner may read.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from glm_rag.errors import ConfigError, GlmRagError
from glm_rag.sqlite_file import connect, explain, migrate, uri_of

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "write", "admin")
FILE_NAME = "api-keys.sqlite"

_KEY = re.compile(r"grk-([0-9a-f]{12})-[A-Za-z0-9_-]{43}")
_NAME = re.compile(r"[^\W_](?:[\w .@-]{0,62}[\w-])?")
_USED_SECONDS = 60.0  # the time of the last use is as exact as this
_SCHEMA = """
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    scope TEXT NOT NULL,
    hash BLOB NOT NULL,
    created REAL NOT NULL,
    used REAL,
    revoked REAL
);
CREATE UNIQUE INDEX active_names ON keys (name) WHERE revoked IS NULL;
"""


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key. Times are seconds since 1970.

    Attributes:
        id: stands in the key itself, in the clear.
        scope: `read`, `write` (reads too) or `admin` (both, and what changes the server).
        used: its last use, to the minute; None: never. revoked: None while it is good.
    """

    id: str
    name: str
    scope: Scope
    created: float
    used: float | None = None
    revoked: float | None = None

    def allows(self, scope: Scope) -> bool:
        """Whether it may do what needs `scope`."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


class KeyStore:
    """Keys in one SQLite file, made with the first key. Any thread and process may use it.

    Attributes:
        always: requests need a key also where there are none, so that a server which other
            computers reach stays locked when its file is lost.

    Raises:
        GlmRagError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.always = False
        self._lock = threading.Lock()

    def create(self, name: str, scope: Scope) -> str:
        """Make a key and return it; it is shown nowhere else.

        Raises:
            ConfigError: a name that is taken or cannot be one, or an unknown scope.
        """
        if scope not in SCOPES:
            raise ConfigError(f"unknown scope {scope!r}: use {', '.join(SCOPES)}")
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} cannot name a key: use up to 64 letters, digits, spaces, . @ - and _"
            )
        key_id = secrets.token_hex(6)
        key = f"grk-{key_id}-{secrets.token_urlsafe(32)}"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # SQLite gives its other files the mode of this one.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        with self._connection() as connection:
            migrate(connection, [_SCHEMA])
            try:
                connection.execute(
                    "INSERT INTO keys (id, name, scope, hash, created) VALUES (?, ?, ?, ?, ?)",
                    (key_id, name, scope, _hash(key), time.time()),
                )
            except sqlite3.IntegrityError as error:
                raise ConfigError(
                    f"there is a key {name!r} already: choose another name or revoke it first"
                ) from error
        return key

    def revoke(self, name_or_id: str) -> Key:
        """Make a key useless, from the next request on.

        Raises:
            ConfigError: there is no such key that is still good.
        """
        good = [key for key in self.all() if key.revoked is None]
        found = [key for key in good if name_or_id in (key.name, key.id)]
        if not found:
            known = ", ".join(key.name for key in good) or "none"
            raise ConfigError(f"no key {name_or_id!r}: there are {known}")
        now = time.time()
        with self._connection() as connection:
            connection.execute("UPDATE keys SET revoked = ? WHERE id = ?", (now, found[0].id))
        return found[0]

    def all(self) -> list[Key]:
        """Every key, revoked ones too, in the order they were made."""
        if not self.path.is_file():
            return []
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT id, name, scope, created, used, revoked FROM keys ORDER BY created, rowid"
            )
            return [Key(*row) for row in rows]

    @property
    def required(self) -> bool:
        """Whether requests need a key: from the first one on, so that revoking the last one
        locks the server and does not open it."""
        if self.always or not self.path.is_file():
            return self.always
        with self._connection() as connection:
            return connection.execute("SELECT 1 FROM keys LIMIT 1").fetchone() is not None

    def find(self, key: str) -> Key | None:
        """The key that was shown, if it is one of ours and good; its use is noted."""
        match = _KEY.fullmatch(key)
        if match is None or not self.path.is_file():
            return None
        with self._connection() as connection:
            row = connection.execute(
                "SELECT hash, id, name, scope, created, used, revoked FROM keys WHERE id = ?",
                (match[1],),
            ).fetchone()
            stored = row[0] if row else bytes(32)
            if not hmac.compare_digest(stored, _hash(key)) or row is None:
                return None
            found = Key(*row[1:])
            if found.revoked is not None:
                return None
            self._note_use(connection, found)
            return found

    def _note_use(self, connection: sqlite3.Connection, key: Key) -> None:
        now = time.time()
        if key.used is None or now - key.used > _USED_SECONDS:
            connection.execute("UPDATE keys SET used = ? WHERE id = ?", (now, key.id))

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """One of its own for each call: keys are revoked by other processes, files replaced."""
        with self._lock:
            try:
                connection = connect(uri_of(self.path))
                try:
                    yield connection
                finally:
                    connection.close()
            except sqlite3.Error as error:
                hint = "delete it and make the keys anew"
                raise GlmRagError(explain(error, self.path, if_damaged=hint)) from error


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
