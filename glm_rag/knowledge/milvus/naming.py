"""Where Milvus is, and which knowledge bases it holds."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from glm_rag.errors import (
    ConfigError,
    KnowledgeBaseError,
    KnowledgeBaseNotFoundError,
    StoreUnavailableError,
)
from glm_rag.knowledge.milvus import tables
from glm_rag.knowledge.milvus.catalogue import fact_row
from glm_rag.knowledge.milvus.client import SECONDS, Milvus
from glm_rag.knowledge.milvus.writing import refuse_writers
from glm_rag.knowledge.naming import folder_of

_FOLDER = "milvus"


@dataclass(frozen=True, slots=True)
class Location:
    """A Milvus: `http://host:19530` or a file whose name ends in `.db`, and a database there."""

    uri: str = "http://127.0.0.1:19530"
    token: str = field(default="", repr=False)
    database: str = "default"

    @classmethod
    def parse(cls, given: str, *, token: str = "") -> Location:
        """`milvus://host:19530[/database]`, `milvus+https://...`, or a URI as pymilvus takes it.

        Raises:
            ConfigError: it is none.
        """
        schemes = {"milvus": "http", "milvus+https": "https", "http": "http", "https": "https"}
        try:
            parts = urlsplit(given)
            port = parts.port or (19530 if parts.scheme == "milvus" else None)
        except ValueError as error:
            raise ConfigError(f"{given!r} is no address: {error}") from error
        if parts.scheme in schemes and parts.netloc:
            host = parts.netloc if parts.port or port is None else f"{parts.netloc}:{port}"
            database = parts.path.strip("/") or "default"
            return cls(f"{schemes[parts.scheme]}://{host}", token, database)
        if given.endswith(".db") and "://" not in given:
            return cls(given, token)
        raise ConfigError(
            f"{given!r} names no Milvus: write milvus://host:19530/database, or a file whose name "
            "ends in .db for milvus-lite"
        )

    def connect(self, *, seconds: float = SECONDS) -> Milvus:
        """A connection, whose questions are given up after so long; see `Milvus`.

        Raises:
            ConfigError: no URI. StoreUnavailableError: nobody answers.
            KnowledgeBaseError: the token is refused.
        """
        self.check()
        return Milvus(self.uri, token=self.token, database=self.database, seconds=seconds)

    def check(self) -> None:
        """Make sure that it could be a Milvus; nobody is asked.

        Raises:
            ConfigError: no URI, or none of a Milvus.
        """
        if not self.uri:
            raise ConfigError(
                "store.uri is empty: say where Milvus is, as in "
                "GLM_RAG_STORE__URI=http://127.0.0.1:19530"
            )
        if not (_is_address(self.uri) if "://" in self.uri else self.uri.endswith(".db")):
            raise ConfigError(
                f"store.uri {self.uri!r} names no Milvus: write http://HOST:19530, or a file whose "
                "name ends in .db for milvus-lite"
            )

    def folder(self, home: Path, name: str) -> Path:
        """What this machine keeps beside the knowledge base: the lock and the words of prompts."""
        place = f"{self.uri.rstrip('/')}\0{self.database}\0{tables.stem_of(name)}"
        return home / _FOLDER / hashlib.sha256(place.encode()).hexdigest()[:24]


def _is_address(uri: str) -> bool:
    """Whether pymilvus could connect to it."""
    try:
        parts = urlsplit(uri)
        has_place = parts.port != 0 and bool(parts.hostname)
    except ValueError:
        return False
    return (has_place and parts.scheme in ("http", "https", "tcp")) or parts.scheme == "unix"


def existing_stem(milvus: Milvus, name: str, *, create: bool = False) -> str:
    """How the collections of a knowledge base begin; with `create` they are made.

    Raises:
        ConfigError: not a name. KnowledgeBaseNotFoundError: there is none of that name.
    """
    folder_of(name, Path())  # a name that is fit for a folder is fit here
    stem = tables.stem_of(name)
    if is_complete(milvus, stem):
        # A server that was started again, or a new name, may have let go of them.
        chunks = _facts(milvus, stem, "chunks").values()
        for collection in (tables.docs_of(stem), tables.texts_of(stem), *chunks):
            milvus.load(collection)
        return stem
    if not create:
        names = ", ".join(list_in(milvus))
        there_are = f"there are: {names}" if names else "there are none yet"
        raise KnowledgeBaseNotFoundError(
            f"no knowledge base {name!r} at {milvus.place} ({there_are}): run glm-rag ingest PATH "
            f"--kb {name}"
        )
    if milvus.has(tables.meta_of(stem)) and _facts(milvus, stem, "deleted"):
        _drop(milvus, stem)  # what a killed deletion has left
    for collection in (tables.docs_of(stem), tables.texts_of(stem), tables.meta_of(stem)):
        milvus.create(collection, tables.make_rows)
    # Last: what has no name is not there yet.
    facts = {"change": "0", "born": str(time.time_ns()), "format": tables.FORMAT}
    facts["name"] = folder_of(name, Path()).name
    known = _facts(milvus, stem, *facts)
    rows = [fact_row(key, value) for key, value in facts.items() if key not in known]
    milvus.upsert(tables.meta_of(stem), rows)
    return stem


def born(milvus: Milvus, name: str) -> int:
    """When a knowledge base was made, in nanoseconds since 1970; errors as of `existing_stem`.

    One request, where everything is as usual.
    """
    known = _glance(milvus, name)
    if known is None:
        known = _facts(milvus, existing_stem(milvus, name), "born")
    return int(known.get("born", 0))


def touched(milvus: Milvus, name: str) -> int:
    """When a knowledge base was made or last changed, in nanoseconds since 1970."""
    known = _facts(milvus, named_stem(milvus, name), "born", "change")
    return max(map(int, known.values()), default=0)


def present_stem(milvus: Milvus, name: str) -> str:
    """As `existing_stem`, by one request: collections that were let go of load when asked."""
    return existing_stem(milvus, name) if _glance(milvus, name) is None else tables.stem_of(name)


def named_stem(milvus: Milvus, name: str) -> str:
    """As `existing_stem`, also of one whose renaming was broken off; nothing is loaded."""
    folder_of(name, Path())
    stem = tables.stem_of(name)
    return stem if is_complete(milvus, stem) else existing_stem(milvus, name)


def _glance(milvus: Milvus, name: str) -> dict[str, str] | None:
    """What a knowledge base says of itself; None where that needs a closer look."""
    folder_of(name, Path())
    try:
        known = _read_facts(milvus, tables.stem_of(name), "name", "format", "born")
    except StoreUnavailableError:
        raise
    except KnowledgeBaseError:
        return None
    is_usual = "name" in known and known.get("format", tables.FORMAT) == tables.FORMAT
    return known if is_usual else None


def is_complete(milvus: Milvus, stem: str) -> bool:
    """Whether a knowledge base has been made to the end.

    Raises:
        KnowledgeBaseError: by a newer glm-rag.
    """
    if not milvus.has(tables.meta_of(stem)):
        return False
    facts = _facts(milvus, stem, "name", "format")
    if facts.get("format", tables.FORMAT) != tables.FORMAT:
        raise KnowledgeBaseError(
            f"{stem} at {milvus.place} was written by a newer glm-rag (format {facts['format']}): "
            "upgrade glm-rag"
        )
    return "name" in facts


def _facts(milvus: Milvus, stem: str, *keys: str) -> dict[str, str]:
    milvus.load(tables.meta_of(stem))
    return _read_facts(milvus, stem, *keys)


def _read_facts(milvus: Milvus, stem: str, *keys: str) -> dict[str, str]:
    rows = milvus.get(tables.meta_of(stem), [f"fact:{key}" for key in keys], ["pk", "body"])
    return {row["pk"].removeprefix("fact:"): row["body"] for row in rows}


def list_in(milvus: Milvus) -> list[str]:
    """Names of the knowledge bases, sorted."""
    facts = (_read_facts(milvus, stem, "name") for stem in tables.stems_in(milvus.collections()))
    return sorted(known["name"] for known in facts if known)


def delete_in(milvus: Milvus, name: str) -> None:
    """Delete a knowledge base with everything in it.

    Raises:
        KnowledgeBaseNotFoundError: there is none of that name.
    """
    stem = existing_stem(milvus, name)
    # Without its name it is not there any more, even if the rest takes time.
    milvus.upsert(tables.meta_of(stem), [fact_row("deleted", "1")])
    milvus.delete_keys(tables.meta_of(stem), ["fact:name"])
    _drop(milvus, stem)


def _drop(milvus: Milvus, stem: str) -> None:
    meta = tables.meta_of(stem)
    for collection in sorted(milvus.collections(), key=lambda name: name == meta):
        if tables.belongs(collection, stem):
            milvus.drop(collection)


def rename_in(milvus: Milvus, old: str, new: str) -> None:
    """Give a knowledge base another name.

    Raises:
        ConfigError: the new name is none.
        KnowledgeBaseNotFoundError: there is none of the old name.
        KnowledgeBaseBusyError: somebody is writing into it, on whatever machine.
        KnowledgeBaseError: the new one is taken.
    """
    before, folder = named_stem(milvus, old), folder_of(new, Path())
    refuse_writers(milvus, before, old)
    after = tables.stem_of(new)
    if is_complete(milvus, after):
        raise KnowledgeBaseError(
            f"there is a knowledge base {new!r} already: choose another name, or delete it first "
            f"with glm-rag kb delete {new}"
        )
    meta = tables.meta_of(before)
    for collection in milvus.collections():
        if tables.belongs(collection, before) and collection != meta:
            milvus.rename(collection, after + collection.removeprefix(before))
    rows = [fact_row("name", folder.name)]
    chunks = _facts(milvus, before, "chunks").get("chunks")
    if chunks is not None:
        rows.append(fact_row("chunks", tables.chunks_of(after, tables.generation_of(chunks))))
    milvus.upsert(meta, rows)
    # Last: killed before, the same command goes on.
    milvus.rename(meta, tables.meta_of(after))
