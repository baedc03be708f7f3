"""The connection to Milvus: small calls, batches of a size it takes, errors in one line."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

from glm_rag.errors import KnowledgeBaseError, MissingDependencyError, StoreUnavailableError

Row = dict[str, Any]

# Milvus answers one query with at most this many rows, and takes 64 MB in one request.
MOST_ROWS = 16_384
MOST_BYTES = 65_535  # of a VARCHAR
_BATCH_ROWS = 1_000
_BATCH_BYTES = 8_000_000
_BATCH_VALUES = 1_000  # of one `in`
SECONDS = 120.0
_CONNECT_SECONDS = 10.0
_MAKE_SECONDS = 30.0
_POLL_SECONDS = 0.1
# pymilvus pings every 10 s, also when nothing is asked. A gRPC server of default settings, as that
# of milvus-lite, takes one in five minutes and hangs up ("too many pings") on who sends more.
CHANNEL_OPTIONS = {
    "grpc.keepalive_time_ms": 300_000,
    "grpc.keepalive_permit_without_calls": 0,
    # gRPC waits longer and longer, up to two minutes, before it looks for a server that was gone.
    "grpc.max_reconnect_backoff_ms": 5_000,
}
_NO_SUCH = ("not exist", "not found", "can't find")
_NOBODY = ("fail connecting", "unavailable", "deadline")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def quoted(text: str) -> str:
    """A text as a literal of Milvus' filter language, whatever is in it."""
    return '"' + "".join(_ESCAPES.get(character, character) for character in text) + '"'


def listed(values: Iterable[str]) -> str:
    """Texts as a list of literals."""
    return f"[{', '.join(map(quoted, values))}]"


def batched(values: Iterable[Any], size: int = _BATCH_VALUES) -> Iterator[list[Any]]:
    """As many values as one expression may name."""
    everything = list(values)
    return (everything[i : i + size] for i in range(0, len(everything), size))


class Milvus:
    """One connection; any thread may use it.

    Args:
        uri: `http://host:19530` of a server, or a file for milvus-lite, whose name ends in `.db`.
        token: `user:password` or an API key. database: of that server.
        seconds: longest time for an answer; making and loading collections has its own.

    Raises:
        KnowledgeBaseError: nobody answers, the token is refused, there is no such database.
        MissingDependencyError: pymilvus, or milvus-lite for a file, is not installed.
    """

    def __init__(
        self, uri: str, *, token: str = "", database: str = "default", seconds: float = SECONDS
    ) -> None:
        # Else gRPC tells on the terminal of every process that is started beside it, as Ray's are.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        try:
            from pymilvus import MilvusClient
        except ImportError as error:
            raise MissingDependencyError.for_extra("pymilvus", "milvus") from error
        # It prints every error with its traceback, also those that are expected here.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        self.uri = uri
        self.database = database or "default"
        self._seconds = seconds
        with self._translated():
            self._client = MilvusClient(
                uri,
                token=token,
                db_name=self.database,
                timeout=_CONNECT_SECONDS,
                grpc_options=CHANNEL_OPTIONS,
            )
        with self._translated():
            # The first call that a wrong token or database is told by.
            try:
                self._client.list_collections(timeout=_CONNECT_SECONDS)
            except BaseException:
                self._client.close()
                raise

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    @cached_property
    def is_lite(self) -> bool:
        """Whether it is milvus-lite, which is small enough to search exactly."""
        with self._translated():
            return "lite" in str(self._client.get_server_version(timeout=SECONDS)).lower()

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.uri.rstrip('/')}/{self.database}"

    # ------------------------------------------------------------ collections

    def collections(self) -> list[str]:
        """Names of all collections."""
        with self._translated():
            return sorted(self._client.list_collections(timeout=self._seconds))

    def create(self, name: str, make: Callable[[Any], tuple[Any, Any]]) -> None:
        """Make a collection unless there is one of that name.

        Args:
            make: from the client to a schema and its indexes.
        """
        from pymilvus import MilvusException

        with self._translated():
            if not self._client.has_collection(name, timeout=SECONDS):
                try:
                    self._make(name, make)
                except MilvusException:
                    # Somebody else may be making it this moment.
                    if not self._appears(name):
                        raise
        self.load(name)

    def _appears(self, name: str) -> bool:
        deadline = time.monotonic() + _CONNECT_SECONDS
        while not self._client.has_collection(name, timeout=SECONDS):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _make(self, name: str, make: Callable[[Any], tuple[Any, Any]]) -> None:
        schema, indexes = make(self._client)
        options = {"consistency_level": "Strong", "timeout": SECONDS}
        self._client.create_collection(name, schema=schema, **options)
        # Waiting for each index would take half a second; loading waits for all.
        self._client.create_index(name, indexes, sync=False, timeout=SECONDS)
        self._client.load_collection(name, timeout=SECONDS)

    def load(self, name: str) -> None:
        """Make sure that a collection can be searched, also one that somebody is making.

        Raises:
            KnowledgeBaseError: it cannot, for half a minute.
        """
        with self._translated():
            self._load(name)

    def _load(self, name: str) -> None:
        from pymilvus import MilvusException

        deadline = time.monotonic() + _MAKE_SECONDS
        while True:
            try:
                known = self._client.get_load_state(name, timeout=self._seconds)["state"]
                state = str(getattr(known, "name", known)).lower()
                if state == "loaded":
                    return
                if state == "notexist":
                    raise KnowledgeBaseError(f"{name} at {self.place} was deleted meanwhile")
                self._client.load_collection(name, timeout=SECONDS)
            except MilvusException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)

    def flush(self, name: str) -> None:
        """Bring what was written into the form that is searched fast."""
        self._ask("flush", name)

    def has(self, name: str) -> bool:
        """Whether there is a collection of that name."""
        with self._translated():
            return bool(self._client.has_collection(name, timeout=self._seconds))

    def drop(self, name: str) -> None:
        """Delete a collection, if it is there."""
        with self._translated():
            self._client.drop_collection(name, timeout=SECONDS)

    def rename(self, old: str, new: str) -> None:
        """Give a collection another name."""
        with self._translated():
            self._client.rename_collection(old, new, timeout=SECONDS)

    # ------------------------------------------------------------ rows

    def upsert(self, collection: str, rows: Iterable[Row]) -> None:
        """Write rows in place of those with the same primary key; a few are one request."""
        batch: list[Row] = []
        size = 0
        for row in rows:
            weight = _weight(row)
            if batch and (len(batch) == _BATCH_ROWS or size + weight > _BATCH_BYTES):
                self._upsert(collection, batch)
                batch, size = [], 0
            batch.append(row)
            size += weight
        if batch:
            self._upsert(collection, batch)

    def _upsert(self, collection: str, rows: list[Row]) -> None:
        for row in rows:
            for name, value in row.items():
                if isinstance(value, str) and len(value.encode()) > MOST_BYTES:
                    raise KnowledgeBaseError(
                        f"{row.get('source') or row['pk']}: its {name} has more than {MOST_BYTES} "
                        "bytes, which Milvus does not take"
                    )
        self._ask("upsert", collection, data=rows)

    def get(self, collection: str, keys: Iterable[str], fields: Sequence[str]) -> list[Row]:
        """The rows with these primary keys."""
        found: list[Row] = []
        for batch in batched(dict.fromkeys(keys)):
            found += self._ask("get", collection, ids=batch, output_fields=list(fields))
        return found

    def query(
        self, collection: str, where: str, fields: Sequence[str], *, limit: int = 0
    ) -> list[Row]:
        """The rows that an expression lets through; with `limit`, any so many of them.

        For fields of some bytes: everything up to `MOST_ROWS` rows comes in one answer.
        """
        most = min(limit or MOST_ROWS, MOST_ROWS)
        asked = {"filter": where, "output_fields": list(fields), "limit": most}
        rows = list(self._ask("query", collection, **asked))
        if limit or len(rows) < MOST_ROWS:
            return rows
        return list(self.scan(collection, where, fields))

    def scan(
        self, collection: str, where: str, fields: Sequence[str], *, size: int = 1_000
    ) -> Iterator[Row]:
        """All rows that an expression lets through, `size` in memory, as they are at the start."""
        asked = {"filter": where, "output_fields": list(fields), "batch_size": size}
        pages = self._ask("query_iterator", collection, **asked)
        try:
            while True:
                with self._translated():
                    rows = pages.next()
                if not rows:
                    return
                yield from rows
        finally:
            pages.close()

    def count(self, collection: str, where: str) -> int:
        """How many rows an expression lets through."""
        (row,) = self._ask("query", collection, filter=where, output_fields=["count(*)"])
        return int(row["count(*)"])

    def delete(self, collection: str, where: str) -> None:
        """Delete the rows that an expression lets through."""
        self._ask("delete", collection, filter=where)

    def delete_keys(self, collection: str, keys: Iterable[str]) -> None:
        """Delete the rows with these primary keys."""
        for batch in batched(keys):
            self._ask("delete", collection, ids=batch)

    def search(
        self,
        collection: str,
        field: str,
        asked: Any,
        *,
        metric: str,
        limit: int,
        where: str,
        fields: Sequence[str],
    ) -> list[Row]:
        """The `limit` best rows, best first."""
        (hits,) = self._ask(
            "search",
            collection,
            data=[asked],
            anns_field=field,
            limit=min(limit, MOST_ROWS),
            filter=where,
            output_fields=list(fields),
            search_params={"metric_type": metric},
        )
        return [dict(hit["entity"]) for hit in hits]

    def _ask(self, method: str, collection: str, **arguments: Any) -> Any:
        """Call a method of pymilvus about a collection, which is loaded again if a server that was
        started again has let go of it."""
        from pymilvus import MilvusException

        ask = getattr(self._client, method)
        request = partial(ask, collection, timeout=self._seconds, **arguments)
        with self._translated():
            try:
                return request()
            except MilvusException as error:
                if not _is_let_go(str(error.message)):
                    raise
            self.load(collection)
            return request()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from grpc import RpcError
        from pymilvus import MilvusException

        try:
            yield
        except MilvusException as error:
            raise as_ours(str(error.message), self.uri) from error
        except RpcError as error:  # of who took the question and did not answer in time
            raise as_ours(str(error), self.uri) from error
        except (OSError, ValueError) as error:
            raise KnowledgeBaseError(f"cannot use Milvus at {self.uri}: {error}") from error


def as_ours(message: str, uri: str) -> KnowledgeBaseError:
    """What Milvus or its client says, as an error of ours."""
    said = message.lower()
    if any(words in said for words in _NOBODY):
        return StoreUnavailableError(
            f"no Milvus answers at {uri}: start it (milvus-lite server --host 127.0.0.1 "
            "--data-dir DIR, or your cluster), or correct store.uri"
        )
    return KnowledgeBaseError(_explain(message, uri))


def _explain(message: str, uri: str) -> str:
    """One line that says what is wrong with a Milvus that answers, and what to do."""
    line = " ".join(message.split())
    said = line.lower()
    if "milvus-lite is required" in said:
        return "a file as store.uri needs milvus-lite: run pip install milvus-lite"
    if "collection" in said and any(words in said for words in _NO_SUCH):
        return f"Milvus at {uri}: the knowledge base was deleted or renamed meanwhile: look again"
    if "open local milvus failed" in said:
        return f"cannot open {uri}: its folder must exist, and one process uses it at a time"
    if "auth" in said or "unauthenticated" in said or "permission" in said:
        return f"Milvus at {uri} refuses the token: correct GLM_RAG_STORE__TOKEN ({line[:120]})"
    if "database" in said and "not" in said:
        return f"Milvus at {uri}: {line[:160]}: correct store.database, or make it there"
    if "not support" in said or "unimplemented" in said or "unknown method" in said:
        return f"Milvus at {uri} is too old ({line[:160]}): use 2.5 or newer"
    return f"Milvus at {uri}: {line[:300]}"


def _is_let_go(message: str) -> bool:
    """Whether a server says that a collection has to be loaded first, milvus-lite or a cluster."""
    said = message.lower()
    return any(words in said for words in ("'released'", "not loaded", "not fully loaded"))


def _weight(row: Mapping[str, Any]) -> int:
    """About how many bytes a row takes in a request."""
    return sum(len(v) * 4 for v in row.values() if hasattr(v, "__len__")) + 200
