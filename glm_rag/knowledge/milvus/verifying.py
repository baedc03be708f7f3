"""Does everything of a knowledge base in Milvus agree with the stored texts? Reads only."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import numpy as np

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge import records
from glm_rag.knowledge.milvus.catalogue import Catalogue, Files, State, is_live
from glm_rag.knowledge.milvus.chunk_rows import CHUNK_FIELDS, encoded_terms, stored_row
from glm_rag.knowledge.milvus.client import quoted
from glm_rag.knowledge.milvus.rows import DocRow
from glm_rag.knowledge.milvus.writing import busy_versions, unfinished
from glm_rag.knowledge.verifying.chunks import wrong_text, wrong_vector
from glm_rag.knowledge.verifying.documents import pages_fit
from glm_rag.knowledge.verifying.verify import MAX_FINDINGS, counter
from glm_rag.types import VerifyFinding, VerifyReport

Findings = Iterator[VerifyFinding]
_NAMED = ["pk", "doc", "root", "version"]


def verify(
    name: str, rows: Catalogue, on_progress: Callable[[int, int], None] | None = None
) -> VerifyReport:
    """Derive every chunk, vector length and search term again and compare.

    A document that somebody changes meanwhile is not judged.

    Raises:
        KnowledgeBaseError: it cannot be read at all.
    """
    started = time.perf_counter()
    state, files = rows.state(), rows.everything()
    docs = sorted(files.docs.values(), key=lambda doc: doc.order)
    total = sum(doc.info.num_chunks for doc in docs)
    check = _Check(name, rows, state, files)
    findings: list[VerifyFinding] = []
    count = 0
    for finding in check.all(docs, counter(on_progress, total)):
        count += 1
        if count <= MAX_FINDINGS:
            findings.append(finding)
    return VerifyReport(
        name, len(docs), total, count, tuple(findings), time.perf_counter() - started
    )


class _Check:
    """One run over a knowledge base."""

    def __init__(self, name: str, rows: Catalogue, state: State, files: Files) -> None:
        self._name = name
        self._rows = rows
        self._state = state
        self._files = files
        self._rebuild = f"glm-rag kb rebuild {name}"

    def all(self, docs: list[DocRow], tell: Callable[[int], None]) -> Findings:
        """Every finding."""
        yield from self._facts(docs)
        yield from self._copies()
        done = 0
        for doc in docs:
            found = list(self._document(doc))
            if found and self._is_unchanged(doc):
                yield from found
            done += doc.info.num_chunks
            tell(done)
        yield from self._strays()

    def _facts(self, docs: list[DocRow]) -> Findings:
        for intent in unfinished(self._state):
            who = f"process {intent['pid']} on {intent['host']}"
            problem = f"{who} was killed while it wrote {len(intent['roots'])} files"
            yield VerifyFinding("database", "", problem, self._rebuild)
        facts = self._state.facts
        has_chunks = any(doc.info.num_chunks for doc in docs)
        known = "embeddings" in facts and facts.get("dimension", "").isdecimal()
        if has_chunks and not (known and self._state.chunks):
            problem = "which embedder made the vectors, and of what length, is lost"
            yield VerifyFinding("meta", "", problem, f"{self._rebuild} --embed")

    def _copies(self) -> Findings:
        rows = self._rows.milvus.query(
            self._rows.docs, 'kind == "copy"', ["pk", "source", "sha256", "body"]
        )
        for row in rows:
            if row["source"] not in self._files.copies:
                is_document = row["source"] in self._files.docs
                problem = (
                    "it is both a document and a copy of another"
                    if is_document
                    else f"it is a copy of {json.loads(row['body'])['of']}, which is not here"
                )
                yield VerifyFinding("document", row["source"], problem, self._rebuild)

    def _document(self, doc: DocRow) -> Findings:
        source, info = doc.info.source, doc.info
        try:
            text = self._rows.text(doc)
            pages = self._rows.pages(doc)
        except KnowledgeBaseError:
            yield self._wrong("document", doc, "a part of its text is missing")
            return
        if len(text) != info.num_characters:
            problem = f"its text has {len(text)} characters and should have {info.num_characters}"
            yield self._wrong("document", doc, problem)
        if pages and not pages_fit(pages, len(text)):
            yield self._wrong("document", doc, "its pages do not lie in its text")
        if info.container and info.container not in self._files.docs:
            problem = "the file that holds it is not in the knowledge base"
            yield self._wrong("document", doc, problem)
        yield from self._chunks(doc, source, text)

    def _chunks(self, doc: DocRow, source: str, text: str) -> Findings:
        count = 0
        where = f"doc == {quoted(doc.doc)}"
        fields = (*CHUNK_FIELDS, "vector")
        chunks = self._state.chunks
        for row in self._rows.milvus.scan(chunks, where, fields) if chunks else ():
            count += 1
            if not row["text"]:
                row["text"] = text[row["start"] : row["end"]]
            stored = stored_row(row)
            section = stored.known.get("section") or (None, None)
            columns = {
                "text": row["text"],
                "start_offset": row["start"],
                "end_offset": row["end"],
                "content_hash": row["content_hash"],
                "extra": json.dumps(row["extra"]) if row["is_text"] else None,
                "key": row["key"],
                "section_start": section[0],
                "section_end": section[1],
                "page": stored.known["page"],
            }
            for problem in wrong_text(columns, source, text):
                yield self._wrong("chunk", doc, problem)
            known = stored.known
            terms = records.search_terms(
                known["headings"], known.get("table_header", ""), row["text"]
            )
            if encoded_terms(terms) != row["terms"] or len(terms) != row["num_terms"]:
                problem = f"characters {row['start']} to {row['end']}: the search terms are not "
                problem += "those of the text"
                yield VerifyFinding("keywords", source, problem, self._rebuild)
            vector = np.asarray(row["vector"], dtype="<f4").tobytes()
            problem = wrong_vector(vector, int(self._state.facts.get("dimension", 0)))
            if problem:
                line = f"chunk {row['chunk_index']}: {problem}"
                yield VerifyFinding("vector", source, line, f"{self._rebuild} --embed")
        if count != doc.info.num_chunks:
            problem = f"it has {count} chunks and should have {doc.info.num_chunks}"
            yield self._wrong("chunk", doc, problem)

    def _strays(self) -> Findings:
        """Rows that count for nothing and that nobody is writing."""
        milvus, chunks = self._rows.milvus, self._state.chunks
        tables = {"passages": chunks, "parts of texts": self._rows.texts}
        for what, table in tables.items():
            rows = milvus.scan(table, 'pk != ""', _NAMED) if table else ()
            strays = [row for row in rows if not is_live(row, self._files.roots)]
            # Somebody may be writing it, or have put it since the beginning.
            busy = busy_versions(self._rows.state())
            roots = self._rows.roots({row["root"] for row in strays})
            count = sum(r["version"] not in busy and not is_live(r, roots) for r in strays)
            if count:
                problem = f"{count} {what} belong to no document"
                yield VerifyFinding("index", "", problem, self._rebuild)

    def _wrong(self, check: str, doc: DocRow, problem: str) -> VerifyFinding:
        info = doc.info
        while info.container in self._files.docs and info.container != info.source:
            info = self._files.docs[info.container].info
        files = [info.source, *(copy.source for copy in self._files.copies_of(info.source))]
        removed = (f'glm-rag kb remove "{file}" --kb {self._name}' for file in files)
        what = "that file" if len(files) == 1 else "these files"
        mend = f"{' && '.join(removed)}, then ingest {what} again"
        return VerifyFinding(check, doc.info.source, problem, mend)

    def _is_unchanged(self, doc: DocRow) -> bool:
        now = self._rows.find([doc.info.source]).docs.get(doc.info.source)
        return now is not None and now == doc
