"""The collection of chunks made again from the stored texts, beside the old one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge import records
from glm_rag.knowledge.embedder import embed_with, embedding_text, name_of, normalised
from glm_rag.knowledge.milvus import tables
from glm_rag.knowledge.milvus.catalogue import Catalogue, State, fact_row, is_live
from glm_rag.knowledge.milvus.client import listed, quoted
from glm_rag.knowledge.milvus.rows import DocRow, document_rows
from glm_rag.knowledge.milvus.writing import Writer, busy_versions
from glm_rag.knowledge.portable import NewDocument

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

Progress = Callable[[str, int, int], None]
_ATTEMPTS = 3
_NAMED = ["pk", "doc", "root", "version"]


class Reads(Protocol):
    """What is asked of the knowledge base."""

    name: str
    embeddings_name: str

    def content(self, state: State, doc: DocRow) -> NewDocument:
        """A stored document with all that belongs to it."""


def rebuild(
    kb: Reads,
    rows: Catalogue,
    writer: Writer,
    embeddings: Embeddings | None,
    on_progress: Progress | None,
) -> str:
    """Make it again; with `embeddings` all vectors, too.

    Returns:
        The name of the embedder.

    Raises:
        KnowledgeBaseError: another machine is writing.
    """
    writer.sweep_stale(rows.state())
    state = rows.state()
    name = kb.embeddings_name if embeddings is None else name_of(embeddings)
    if state.chunks is not None:
        _build(kb, rows, state, embeddings, name, on_progress)
    _sweep_strays(rows)
    _sweep_copies(rows)
    writer.note_change()
    return name


def _build(
    kb: Reads,
    rows: Catalogue,
    state: State,
    embeddings: Embeddings | None,
    name: str,
    on_progress: Progress | None,
) -> None:
    milvus, old = rows.milvus, str(state.chunks)
    new = tables.chunks_of(rows.stem, tables.generation_of(old) + 1)
    plan = f"{new} {name}{' embedded' if embeddings is not None else ''}"
    if state.facts.get("building") != plan:
        milvus.drop(new)  # of a run that was killed, with another embedder
        milvus.upsert(rows.meta, [fact_row("building", plan)])
    dimension = int(state.facts["dimension"])
    if embeddings is not None:
        dimension = len(embeddings.embed_query("a"))
    exact = milvus.is_lite
    milvus.create(new, lambda client: tables.make_chunks(client, dimension, exact=exact))
    for _ in range(_ATTEMPTS):
        change = rows.state().change
        _fill(kb, rows, state, new, embeddings, on_progress)
        now = rows.state()
        if now.change == change and not now.intents:
            break
    else:
        raise KnowledgeBaseError(
            f"knowledge base {kb.name!r} is being written by another machine: rebuild it later"
        )
    facts = {"chunks": new, "embeddings": name, "dimension": str(dimension)}
    milvus.upsert(rows.meta, [fact_row(key, value) for key, value in facts.items()])
    milvus.delete_keys(rows.meta, ["fact:building"])
    milvus.drop(old)


def _fill(
    kb: Reads,
    rows: Catalogue,
    state: State,
    new: str,
    embeddings: Embeddings | None,
    on_progress: Progress | None,
) -> None:
    milvus = rows.milvus
    docs = list(rows.everything().docs.values())
    total, done = sum(doc.info.num_chunks for doc in docs), 0
    for doc in docs:
        if milvus.count(new, f"doc == {quoted(doc.doc)}") != doc.info.num_chunks:
            content = kb.content(state, doc)
            if embeddings is not None:
                content = _embedded(content, embeddings)
            made = document_rows(content, doc.root, doc.version, int(doc.doc.rpartition("-")[2]))
            milvus.upsert(new, made.chunks)
            if made.doc != doc:
                milvus.upsert(rows.docs, [made.doc.row()])
        done += doc.info.num_chunks
        if on_progress is not None:
            on_progress("embedding" if embeddings is not None else "rebuilding", done, total)
    live = {doc.doc for doc in docs}
    gone = {row["doc"] for row in milvus.scan(new, 'pk != ""', ["pk", "doc"])} - live
    for doc_id in gone:
        milvus.delete(new, f"doc == {quoted(doc_id)}")


def _embedded(content: NewDocument, embeddings: Embeddings) -> NewDocument:
    if not content.chunks:
        return content
    texts = [
        item.chunk.text if item.extra is not None else embedding_text(item.chunk, embeddings)
        for item in content.chunks
    ]
    vectors = normalised(embed_with(embeddings, texts))
    name = name_of(embeddings)
    chunks = [
        replace(item, vector=vector, embedded=records.embedding_hash(name, text).hex())
        for item, vector, text in zip(content.chunks, vectors, texts, strict=True)
    ]
    return replace(content, chunks=chunks)


def _sweep_strays(rows: Catalogue) -> None:
    """Rows that count for nothing and that nobody is writing."""
    for table in (rows.state().chunks, rows.texts, rows.docs):
        if table is None:
            continue
        where = 'kind == "doc"' if table == rows.docs else 'pk != ""'
        found = list(rows.milvus.scan(table, where, _NAMED))
        # In this order, as `Writer.sweep` says.
        busy = busy_versions(rows.state())
        roots = rows.roots({row["root"] for row in found})
        stray = [r["pk"] for r in found if r["version"] not in busy and not is_live(r, roots)]
        rows.milvus.delete_keys(table, stray)


def _sweep_copies(rows: Catalogue) -> None:
    files = rows.everything()
    stored = rows.milvus.query(rows.docs, 'kind == "copy"', ["pk", "source"])
    stray = [row["pk"] for row in stored if row["source"] not in files.copies]
    if stray:
        rows.milvus.delete(rows.docs, f"pk in {listed(stray)}")
