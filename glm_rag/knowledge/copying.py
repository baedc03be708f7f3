"""A knowledge base copied from one place to another, file by file: vectors are not made again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from langchain_core.embeddings import Embeddings

from glm_rag.errors import KnowledgeBaseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glm_rag.knowledge.portable import NewDocument
    from glm_rag.retrieval.calibration import Calibration
    from glm_rag.types import DocumentInfo, IngestFailure, KnowledgeBaseInfo

Progress = Callable[[int, int], None]


class Copied(Protocol):
    """What is asked of a knowledge base to be copied, wherever it lies."""

    name: str
    embeddings_name: str

    @property
    def calibration(self) -> Calibration | None:
        """Constants of its own."""

    def store_calibration(self, calibration: Calibration | None) -> None:
        """Keep constants of its own."""

    def info(self) -> KnowledgeBaseInfo:
        """Totals."""

    def known_sources(self) -> dict[str, DocumentInfo]:
        """Every source, copies included."""

    def documents(self) -> list[DocumentInfo]:
        """All documents."""

    def failures(self) -> list[IngestFailure]:
        """All failures."""

    def record_failure(self, failure: IngestFailure) -> None:
        """Keep a failure."""

    def clear_failure(self, source: str) -> None:
        """Forget one."""

    def remove(self, source: str) -> bool:
        """Remove a document, or a copy."""

    def read_file(self, source: str) -> list[NewDocument]:
        """A file with its members."""

    def write_file(self, documents: Sequence[NewDocument]) -> None:
        """Put it."""

    def write_copy(self, source: str, *, of: str, info: DocumentInfo) -> None:
        """Note a copy."""


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a run copied. `num_present` files were there already, as they are here."""

    num_files: int
    num_present: int
    num_documents: int
    num_chunks: int
    num_copies: int
    num_failures: int


class RememberedEmbeddings(Embeddings):
    """Only the name of an embedder: a copy embeds nothing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Never called."""
        raise KnowledgeBaseError("a copy embeds nothing")

    def embed_query(self, text: str) -> list[float]:
        """Never called."""
        raise KnowledgeBaseError("a copy embeds nothing")


def copy(
    source: Copied, target: Copied, *, prune: bool = False, on_progress: Progress | None = None
) -> CopyReport:
    """Make `target` hold what `source` holds. A run that was broken off goes on with the rest.

    Args:
        prune: remove what only the target holds.
        on_progress: gets the number of chunks done, and of all.

    Raises:
        KnowledgeBaseError: the target holds other documents; its totals differ in the end, because
            somebody wrote to one of them meanwhile.
    """
    if target.embeddings_name != source.embeddings_name:
        raise KnowledgeBaseError(
            f"knowledge base {target.name!r} there has another embedder "
            f"({target.embeddings_name}) than this one ({source.embeddings_name}): copy under "
            "another name with --name"
        )
    here, there = source.known_sources(), target.known_sources()
    _make_room(target, here, there, prune=prune)
    documents = {info.source: info for info in source.documents()}
    files = _files(documents)
    total = sum(info.num_chunks for info in documents.values())
    present = done = 0
    for file, members in files.items():
        if all(_same(here[name], there.get(name)) for name in members):
            present += 1
        else:
            target.write_file(source.read_file(file))
        done += sum(documents[name].num_chunks for name in members)
        if on_progress is not None:
            on_progress(done, total)
    copies = _copy_copies(target, documents, here)
    failures = source.failures()
    _copy_failures(target, failures)
    target.store_calibration(source.calibration)
    return _checked(source, target, CopyReport(
        len(files), present, len(documents), total, copies, len(failures)
    ))  # fmt: skip


def _make_room(
    target: Copied,
    here: Mapping[str, DocumentInfo],
    there: Mapping[str, DocumentInfo],
    *,
    prune: bool,
) -> None:
    other = [name for name in there if name not in here]
    if other and not prune:
        raise KnowledgeBaseError(
            f"{target.info().path}: knowledge base {target.name!r} holds {len(other)} documents "
            f"that are not in this one ({other[0]}): copy under another name with --name, or "
            "remove them there with --prune"
        )
    # Copies first: one would take over the document otherwise.
    for name in sorted(other, key=lambda name: not _is_copy(there, name)):
        target.remove(name)


def _is_copy(there: Mapping[str, DocumentInfo], name: str) -> bool:
    return bool(there[name].copies)


def _files(documents: Mapping[str, DocumentInfo]) -> dict[str, list[str]]:
    """Files with all documents inside, by source."""
    files: dict[str, list[str]] = {}
    for name in documents:
        top = name
        seen = {top}
        while (container := documents[top].container) in documents and container not in seen:
            top = container
            seen.add(top)
        files.setdefault(top, []).append(name)
    return files


def _same(here: DocumentInfo, there: DocumentInfo | None) -> bool:
    return there is not None and replace(here, copies=()) == replace(there, copies=())


def _copy_copies(
    target: Copied, documents: Mapping[str, DocumentInfo], here: Mapping[str, DocumentInfo]
) -> int:
    there = target.known_sources()
    count = 0
    for info in documents.values():
        for name in info.copies:
            count += 1
            if there.get(name) != here[name]:
                target.write_copy(name, of=info.source, info=here[name])
    return count


def _copy_failures(target: Copied, failures: Sequence[IngestFailure]) -> None:
    there = {failure.source: failure for failure in target.failures()}
    for failure in failures:
        if there.pop(failure.source, None) != failure:
            target.record_failure(failure)
    for name in there:
        target.clear_failure(name)


def _checked(source: Copied, target: Copied, report: CopyReport) -> CopyReport:
    """Everything there is as it is here, by what is known of each document."""
    here, there = source.known_sources(), target.known_sources()
    wrong = sorted(name for name in {*here, *there} if here.get(name) != there.get(name))
    counts: list[tuple[Any, ...]] = [
        (info.num_documents, info.num_chunks, info.num_failures, info.dimension)
        for info in (source.info(), target.info())
    ]
    if wrong or counts[0] != counts[1]:
        what = f"{len(wrong)} documents differ ({wrong[0]})" if wrong else "the totals differ"
        raise KnowledgeBaseError(
            f"copied, but {what}: somebody wrote meanwhile; run the same command again"
        )
    return report
