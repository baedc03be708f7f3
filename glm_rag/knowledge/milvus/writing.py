"""Writes that count all at once: rows first, then the row of the file that names their version.

1. An *intent* says which files and versions are concerned; readers leave out what is not yet, or
   no longer, named by a root.
2. Chunks, texts and documents of the new version are written beside the old one.
3. One request writes the roots, and with them copies and failures: this is the commit.
4. What is dead is swept away, then the intent.

Killed before 3, the old version counts; after it, the new one. The next writer sweeps.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from glm_rag.errors import KnowledgeBaseBusyError, KnowledgeBaseError
from glm_rag.knowledge.milvus import catalogue, tables
from glm_rag.knowledge.milvus.catalogue import Catalogue, Files, Root, State
from glm_rag.knowledge.milvus.client import Milvus, Row, batched, listed
from glm_rag.knowledge.milvus.planning import Change
from glm_rag.knowledge.milvus.rows import DocumentRows, document_rows
from glm_rag.knowledge.milvus.tables import row_of
from glm_rag.knowledge.portable import NewDocument
from glm_rag.types import IngestFailure

# A writer that has said nothing for so long is gone, where nobody can see it better.
_STALE_SECONDS = 3600.0
_ROOTS_AT_ONCE = 300  # in one intent, which is one row

_active: set[str] = set()
_active_lock = threading.Lock()


@dataclass(slots=True)
class Extra:
    """What is written and deleted with a change: failures, pending vectors by primary key."""

    failures: Sequence[IngestFailure] = ()
    forgotten: Sequence[str] = ()
    pending: Sequence[str] = ()


@dataclass(slots=True)
class _Prepared:
    """The rows of a change and what they replace."""

    roots: list[Root]
    rows: list[DocumentRows]


class Writer:
    """Applies changes to one knowledge base."""

    def __init__(self, rows: Catalogue) -> None:
        self._catalogue = rows
        self._milvus = rows.milvus

    def apply(
        self,
        state: State,
        files: Files,
        change: Change,
        moved: Mapping[str, Sequence[NewDocument]],
        extra: Extra,
    ) -> None:
        """Make a change count.

        Args:
            files: all that is concerned, as it was read. moved: contents of `change.moved`.

        Raises:
            KnowledgeBaseError: it cannot be written; another machine took this one for dead.
        """
        operation = new_version()
        prepared = _prepare(operation, files, change, moved)
        with _active_lock:
            _active.add(operation)
        try:
            intents = self._announce(operation, prepared, files.roots)
            self._write_rows(state, prepared)
            keys = [root.key for root in prepared.roots]
            replaced = {**files.roots, **self._catalogue.roots(keys)}
            self._commit(prepared, change, extra, intents)
            versions = {root.version for root in prepared.roots}
            versions |= {replaced[key].version for key in keys if key in replaced}
            self.sweep(keys, versions, [doc.doc for doc in change.leaving], own=operation)
            self._finish(change, extra, intents)
        finally:
            with _active_lock:
                _active.discard(operation)

    def _announce(self, operation: str, prepared: _Prepared, roots: dict[str, Root]) -> list[str]:
        rows = []
        for number, batch in enumerate(batched(prepared.roots, _ROOTS_AT_ONCE)):
            old = [roots[root.key].version for root in batch if root.key in roots]
            body = {
                "roots": [root.key for root in batch],
                "versions": [root.version for root in batch if root.version] + old,
                "operation": operation,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "at": time.time(),
            }
            rows.append(row_of(f"intent:{operation}-{number}", "intent", json.dumps(body)))
        self._milvus.upsert(self._catalogue.meta, rows)
        return [row["pk"] for row in rows]

    def _write_rows(self, state: State, prepared: _Prepared) -> None:
        chunks = [row for rows in prepared.rows for row in rows.chunks]
        if chunks:
            if state.chunks is None:
                raise KnowledgeBaseError("chunks without a collection to hold them")
            self._milvus.upsert(state.chunks, chunks)
        self._milvus.upsert(
            self._catalogue.texts, [row for rows in prepared.rows for row in rows.texts]
        )
        self._milvus.upsert(self._catalogue.docs, [rows.doc.row() for rows in prepared.rows])

    def _commit(
        self, prepared: _Prepared, change: Change, extra: Extra, intents: Sequence[str]
    ) -> None:
        if len(self._milvus.get(self._catalogue.meta, intents, ["pk"])) != len(intents):
            raise KnowledgeBaseError(
                f"knowledge base {self._catalogue.name!r}: writing took so long that another "
                "machine took this one for dead: run it again"
            )
        rows = [root.row() for root in prepared.roots]
        rows += [copy.row() for copy in change.copies]
        rows += [catalogue.failure_row(failure) for failure in extra.failures]
        self._milvus.upsert(self._catalogue.docs, rows)
        self.note_change()

    def note_change(self) -> None:
        """Tell everybody that passages have changed; numbers only grow."""
        row = catalogue.fact_row("change", str(time.time_ns()))
        self._milvus.upsert(self._catalogue.meta, [row])

    def sweep(
        self, keys: Sequence[str], versions: Iterable[str], docs: Sequence[str], *, own: str
    ) -> None:
        """Delete, of these versions, those that do not count and that nobody else is writing.

        A version is announced before its rows are written, and until its root names it. So one
        that is neither announced now, nor named by a root after that, never counts again.

        Args:
            keys: of the roots concerned. docs: ids of documents that left a file that stays.
        """
        state = self._catalogue.state()
        live = {root.version for root in self._catalogue.roots(keys).values()}
        dead = set(versions) - busy_versions(state, but=own) - live - {""}
        for field, values in (("version", sorted(dead)), ("doc", docs)):
            for batch in batched(values):
                self._delete(state, f"{field} in {listed(batch)}")
        for batch in batched([f"root:{key}" for key in keys]):
            # Unless somebody has put the file again meanwhile.
            self._milvus.delete(self._catalogue.docs, f'pk in {listed(batch)} and version == ""')

    def _delete(self, state: State, where: str) -> None:
        if state.chunks is not None:
            self._milvus.delete(state.chunks, where)
        self._milvus.delete(self._catalogue.texts, where)
        self._milvus.delete(self._catalogue.docs, f'kind == "doc" and {where}')

    def _finish(self, change: Change, extra: Extra, intents: Sequence[str]) -> None:
        gone = [copy.pk for copy in change.lost] + list(extra.forgotten)
        self._milvus.delete_keys(self._catalogue.docs, gone)
        self._milvus.delete_keys(self._catalogue.meta, [*extra.pending, *intents])

    def sweep_stale(self, state: State) -> bool:
        """Finish, or undo, what killed writers have left; whether there was any."""
        stale = [row for row in state.intents if _is_stale(_body(row))]
        for row in stale:
            intent = _body(row)
            roots = self._catalogue.roots(intent["roots"]).values()
            left = [doc for root in roots for doc in root.without]
            own = intent["operation"]
            self.sweep(intent["roots"], intent["versions"], left, own=own)
            self._milvus.delete_keys(self._catalogue.meta, [row["pk"]])
        if stale:
            self.note_change()
        return bool(stale)


def new_version() -> str:
    """A name that is never given twice and sorts by time."""
    return f"{time.time_ns():016x}{secrets.token_hex(4)}"


def unfinished(state: State) -> list[Row]:
    """What killed writers have left."""
    return [_body(row) for row in state.intents if _is_stale(_body(row))]


def refuse_writers(milvus: Milvus, stem: str, name: str) -> None:
    """Make sure that no file is being written at this moment, on whatever machine.

    Raises:
        KnowledgeBaseBusyError: one is.
    """
    for row in milvus.query(tables.meta_of(stem), 'kind == "intent"', ["pk", "body"]):
        intent = _body(row)
        if not _is_stale(intent):
            raise KnowledgeBaseBusyError(
                f"knowledge base {name!r} is being written by process {intent['pid']} on "
                f"{intent['host']}: try again when it is done"
            )


def busy_versions(state: State, *, but: str = "") -> set[str]:
    """Versions that are being written, those they replace too; not by the operation `but`."""
    intents = (_body(row) for row in state.intents)
    return {v for intent in intents if intent["operation"] != but for v in intent["versions"]}


def _prepare(
    operation: str, files: Files, change: Change, moved: Mapping[str, Sequence[NewDocument]]
) -> _Prepared:
    prepared = _Prepared([], [])
    for number, key in enumerate(dict.fromkeys([*change.new, *change.moved])):
        version = f"{operation}{number:04x}"
        documents = [*change.new.get(key, ()), *moved.get(key, ())]
        prepared.rows += [
            document_rows(document, key, version, place) for place, document in enumerate(documents)
        ]
        prepared.roots.append(Root(key, version))
    done = {root.key for root in prepared.roots}
    leaving: dict[str, set[str]] = {}
    for doc in change.leaving:
        if doc.root not in done:
            leaving.setdefault(doc.root, set()).add(doc.doc)
    for key, gone in leaving.items():
        root = files.roots[key]
        stays = any(doc.root == key and doc.doc not in gone for doc in files.docs.values())
        prepared.roots.append(
            replace(root, without=root.without | gone) if stays else Root(key, "")
        )
    return prepared


def _body(row: Row) -> Row:
    body: Row = json.loads(row["body"])
    return body


def _is_stale(intent: Row) -> bool:
    """Whether whoever announced it does not live any more."""
    is_here = bool(intent["host"] == socket.gethostname())
    if is_here and intent["pid"] == os.getpid():
        return intent["operation"] not in _active
    # By then its process id may be that of another one.
    if time.time() - intent["at"] > _STALE_SECONDS:
        return True
    return is_here and not _lives(intent["pid"])


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
