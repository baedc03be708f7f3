"""What a knowledge base in Milvus holds: facts, documents, copies, texts. Reads only.

A file is put with its members as one version. The row of the file, its *root*, names the version
that counts: whatever carries another one is not there for a reader, be it unfinished or not yet
swept away. A root may also leave out some of its documents, by id.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge.milvus import tables
from glm_rag.knowledge.milvus.client import Milvus, Row, batched, listed, quoted
from glm_rag.knowledge.milvus.rows import DOC_FIELDS, DocRow, doc_of, part_key
from glm_rag.knowledge.milvus.tables import hashed, row_of
from glm_rag.types import DocumentInfo, IngestFailure

_DOCS_AND_ROOTS = 'kind in ["doc", "root", "copy"]'
_PARTS_AT_ONCE = 200  # 13 MB


@dataclass(frozen=True, slots=True)
class Root:
    """Which version of a file counts, and which of its documents do not."""

    key: str
    version: str
    without: frozenset[str] = frozenset()

    def row(self) -> Row:
        """As it is stored."""
        body = json.dumps(sorted(self.without))
        return row_of(f"root:{self.key}", "root", body, key=self.key, root=self.key,
                      version=self.version)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CopyRow:
    """Another file with the bytes `sha256` of the document whose source is `of`."""

    source: str
    of: str
    sha256: str
    size: int
    mtime: float
    added_at: float

    @property
    def pk(self) -> str:
        """Its primary key."""
        return f"copy:{hashed(self.source)}"

    def row(self) -> Row:
        """As it is stored."""
        body = {"of": self.of, "size": self.size, "mtime": self.mtime, "added_at": self.added_at}
        return row_of(
            self.pk,
            "copy",
            json.dumps(body, ensure_ascii=False),
            key=hashed(self.source),
            up=hashed(self.of),
            sha256=self.sha256,
            source=self.source,
        )


@dataclass(slots=True)
class Files:
    """Documents that count, by source, with the roots and copies that were read with them."""

    docs: dict[str, DocRow] = field(default_factory=dict)
    copies: dict[str, CopyRow] = field(default_factory=dict)
    roots: dict[str, Root] = field(default_factory=dict)
    _by_original: dict[str, list[CopyRow]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for copy in sorted(self.copies.values(), key=lambda copy: (copy.added_at, copy.source)):
            self._by_original.setdefault(copy.of, []).append(copy)

    def own(self, source: str) -> DocRow | None:
        """The document that a source or a copy's source names."""
        if source in self.docs:
            return self.docs[source]
        copy = self.copies.get(source)
        return None if copy is None else self.docs.get(copy.of)

    def copies_of(self, source: str) -> list[CopyRow]:
        """Oldest first."""
        return self._by_original.get(source, [])

    def info(self, source: str) -> DocumentInfo | None:
        """What is known under a source, seen from it."""
        doc = self.own(source)
        if doc is None:
            return None
        sources = sorted(copy.source for copy in self.copies_of(doc.info.source))
        info = replace(doc.info, copies=tuple(sources))
        if source == info.source:
            return info
        copy = self.copies[source]
        others = tuple(sorted({info.source, *sources} - {source}))
        return replace(info, source=source, size=copy.size, mtime=copy.mtime,
                       added_at=copy.added_at, copies=others)  # fmt: skip


@dataclass(frozen=True, slots=True)
class State:
    """Where a knowledge base stands: its facts, and the writes that are under way."""

    facts: Mapping[str, str]
    intents: tuple[Row, ...]

    @property
    def chunks(self) -> str | None:
        """The collection of chunks, None before there were any."""
        return self.facts.get("chunks")

    @property
    def dimension(self) -> int:
        """Of the vectors, 0 before there were any."""
        return int(self.facts.get("dimension", 0))

    @property
    def change(self) -> int:
        """As `Catalogue.change`."""
        return int(self.facts.get("change", "0"))


class Catalogue:
    """The rows of one knowledge base that are not searched.

    Args:
        milvus: where they are. stem: how its collections begin. name: for messages.
    """

    def __init__(self, milvus: Milvus, stem: str, name: str) -> None:
        self.milvus = milvus
        self.stem = stem
        self.name = name
        self.meta, self.docs = tables.meta_of(stem), tables.docs_of(stem)
        self.texts = tables.texts_of(stem)

    # ------------------------------------------------------------ facts

    def state(self) -> State:
        """All facts, and what is being written.

        Raises:
            KnowledgeBaseError: it was deleted meanwhile.
        """
        rows = self.milvus.query(
            self.meta, 'kind in ["fact", "intent"]', ["pk", "kind", "key", "version", "body"]
        )
        facts = {row["key"]: row["body"] for row in rows if row["kind"] == "fact"}
        if not facts:
            raise KnowledgeBaseError(f"knowledge base {self.name!r} was deleted: open it again")
        return State(facts, tuple(row for row in rows if row["kind"] == "intent"))

    def fact(self, key: str) -> str | None:
        """One fact."""
        rows = self.milvus.get(self.meta, [f"fact:{key}"], ["pk", "body"])
        return rows[0]["body"] if rows else None

    # ------------------------------------------------------------ documents

    def find(self, sources: Iterable[str], *, whole: bool = False) -> Files:
        """What is stored under sources.

        Args:
            whole: with all that could change with them: files they are in, members, copies.
        """
        keys = {hashed(source) for source in sources}
        rows: dict[str, Row] = {}
        asked: set[str] = set()
        while new := keys - asked:
            for batch in batched(sorted(new)):
                names = listed(batch)
                where = f"key in {names} or root in {names} or up in {names}"
                rows |= {row["pk"]: row for row in self.milvus.query(self.docs, where, DOC_FIELDS)}
            asked |= new
            found = [row for row in rows.values() if row["kind"] != "failure"]
            keys = {row["root"] for row in found} | {
                row["up"] for row in found if row["kind"] == "copy"
            }
            if whole:
                keys |= {row[name] for row in found for name in ("key", "up")}
            keys.discard("")
        return files_of(rows.values())

    def everything(self) -> Files:
        """All documents and copies."""
        return files_of(self.milvus.query(self.docs, _DOCS_AND_ROOTS, DOC_FIELDS))

    def roots(self, keys: Iterable[str]) -> dict[str, Root]:
        """The roots with these keys."""
        wanted = (f"root:{key}" for key in keys)
        rows = self.milvus.get(self.docs, wanted, ["pk", "kind", "key", "version", "body"])
        return {row["key"]: _root(row) for row in rows}

    def dead(self, state: State) -> tuple[set[str], set[str]]:
        """Versions, and documents, that lie there and do not count: of writes under way."""
        intents = [json.loads(row["body"]) for row in state.intents]
        named = {key for intent in intents for key in intent["roots"]}
        if not named:
            return set(), set()
        roots = self.roots(named)
        live = {root.version for root in roots.values()}
        versions = {version for intent in intents for version in intent["versions"]}
        return versions - live, {doc for root in roots.values() for doc in root.without}

    def by_content(self, sha256: str) -> list[DocumentInfo]:
        """Documents of files with these bytes, those that lie in no other first."""
        where = f'kind == "doc" and sha256 == {quoted(sha256)}'
        sources = [row["source"] for row in self.milvus.query(self.docs, where, ["pk", "source"])]
        files = self.find(sources)
        docs = [files.docs[source] for source in dict.fromkeys(sources) if source in files.docs]
        docs = [doc for doc in docs if doc.info.sha256 == sha256 and doc.info.parser_version]
        docs.sort(key=lambda doc: (bool(doc.info.container), doc.order))
        return [info for doc in docs if (info := files.info(doc.info.source)) is not None]

    # ------------------------------------------------------------ texts

    def text(self, doc: DocRow, *, whatever_is_left: bool = False) -> str:
        """The extracted text of a document.

        Raises:
            KnowledgeBaseError: a part is missing, and not `whatever_is_left` was asked for.
        """
        return self._joined(doc.doc, "text", doc.parts, whatever_is_left)

    def pages(self, doc: DocRow) -> str:
        """Its pages, as a text."""
        return self._joined(doc.doc, "pages", doc.pages, False)

    def _joined(self, doc: str, kind: str, count: int, whatever_is_left: bool) -> str:
        keys = [part_key(doc, kind, number) for number in range(count)]
        found: dict[str, str] = {}
        for batch in batched(keys, _PARTS_AT_ONCE):
            rows = self.milvus.get(self.texts, batch, ["pk", "body"])
            found |= {row["pk"]: row["body"] for row in rows}
        missing = [key for key in keys if key not in found]
        if missing and not whatever_is_left:
            raise KnowledgeBaseError(
                f"knowledge base {self.name!r}: a part of the text of a document is missing: "
                f"glm-rag kb verify {self.name} names it"
            )
        return "".join(found.get(key, "") for key in keys)

    # ------------------------------------------------------------ failures

    def failures(self, where: str = "") -> list[IngestFailure]:
        """Failures by source; `where` says which."""
        condition = 'kind == "failure"' + (f" and ({where})" if where else "")
        rows = self.milvus.query(self.docs, condition, ["pk", "source", "body"])
        found = [IngestFailure(row["source"], **json.loads(row["body"])) for row in rows]
        return sorted(found, key=lambda failure: failure.source)


def of_file(source: str) -> str:
    """The failures of a file and its members; `#` never stands in a file's URI."""
    first, last = quoted(f"{source}#"), quoted(f"{source}$")
    return f"source == {quoted(source)} or (source > {first} and source < {last})"


def failure_row(failure: IngestFailure) -> Row:
    """A failure as it is stored."""
    body = {name: getattr(failure, name) for name in ("stage", "error", "permanent", "fingerprint")}
    return row_of(
        failure_key(failure.source),
        "failure",
        json.dumps(body, ensure_ascii=False),
        source=failure.source,
    )


def failure_key(source: str) -> str:
    """Primary key of the failure of a source."""
    return f"failure:{hashed(source)}"


def fact_row(key: str, value: str) -> Row:
    """A fact as it is stored."""
    return row_of(f"fact:{key}", "fact", value, key=key)


def _root(row: Row) -> Root:
    return Root(row["key"], row["version"], frozenset(json.loads(row["body"])))


def files_of(rows: Collection[Row]) -> Files:
    """The documents and copies among rows that count."""
    roots = {row["key"]: _root(row) for row in rows if row["kind"] == "root"}
    docs: dict[str, DocRow] = {}
    for row in rows:
        if row["kind"] == "doc" and is_live(row, roots):
            doc = doc_of(row)
            known = docs.get(doc.info.source)
            # Two after a writer was killed between two files: the newer one counts.
            if known is None or known.order < doc.order:
                docs[doc.info.source] = doc
    copies = {}
    for row in rows:
        if row["kind"] == "copy":
            copy = CopyRow(row["source"], sha256=row["sha256"], **json.loads(row["body"]))
            own = docs.get(copy.of)
            if own is not None and own.info.sha256 == copy.sha256 and copy.source not in docs:
                copies[copy.source] = copy
    return Files(docs, copies, roots)


def is_live(row: Row, roots: Mapping[str, Root]) -> bool:
    """Whether a row of a document or chunk counts."""
    root = roots.get(row["root"])
    return root is not None and root.version == row["version"] and row["doc"] not in root.without
