"""The four collections of a knowledge base, their names and their fields.

`meta` holds a handful of facts, writes that are under way, and pending vectors; `docs` documents,
the versions of their files, copies and failures; `texts` extracted texts in parts; `chunks` what
is searched. Milvus wants a vector in every collection: all but `chunks` have one that means
nothing.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Any

from glm_rag.knowledge.milvus.client import MOST_BYTES

FORMAT = "1"
FLAT = [0.0, 1.0]  # the vector that means nothing
PREFIX = "glm_rag_"
_META, _DOCS, _TEXTS, _CHUNKS = "_meta", "_docs", "_texts", "_chunks_"
_SHOWN = 40
_HASHED = 256  # also what is no hash, where somebody gives one of their own
# What SQLite's BM25 has, so that both propose the same candidates.
_BM25 = {"bm25_k1": 1.2, "bm25_b": 0.75}


def stem_of(name: str) -> str:
    """How the collections of a knowledge base begin: Milvus takes ASCII letters and digits only."""
    normal = unicodedata.normalize("NFC", name)
    shown = re.sub(r"[^A-Za-z0-9]+", "_", normal).strip("_")[:_SHOWN]
    digest = hashlib.sha256(normal.encode()).hexdigest()[:16]
    return f"{PREFIX}{shown}_{digest}" if shown else f"{PREFIX}{digest}"


def meta_of(stem: str) -> str:
    """Its collection of facts; it is there when the knowledge base is."""
    return stem + _META


def docs_of(stem: str) -> str:
    """Its collection of documents."""
    return stem + _DOCS


def texts_of(stem: str) -> str:
    """Its collection of texts."""
    return stem + _TEXTS


def chunks_of(stem: str, generation: int) -> str:
    """Its collection of chunks; another embedder makes another generation."""
    return f"{stem}{_CHUNKS}{generation}"


def generation_of(chunks: str) -> int:
    """The generation of a collection of chunks."""
    return int(chunks.rpartition("_")[2])


def stems_in(collections: list[str]) -> list[str]:
    """The knowledge bases that these collections are of."""
    return [
        name.removesuffix(_META)
        for name in collections
        if name.startswith(PREFIX) and name.endswith(_META)
    ]


def belongs(collection: str, stem: str) -> bool:
    """Whether a collection is one of this knowledge base's."""
    rest = collection.removeprefix(stem)
    return collection.startswith(stem) and (
        rest in (_META, _DOCS, _TEXTS) or rest.startswith(_CHUNKS)
    )


def hashed(text: str) -> str:
    """What a source is looked up by: 32 characters, whatever it is."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def make_rows(client: Any) -> tuple[Any, Any]:
    """Schema and indexes of `meta`, `docs` and `texts`."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("pk", DataType.VARCHAR, is_primary=True, max_length=200)
    for name in ("kind", "key", "up", "root", "version", "doc", "sha256", "language"):
        schema.add_field(name, DataType.VARCHAR, max_length=_HASHED)
    schema.add_field("source", DataType.VARCHAR, max_length=MOST_BYTES)
    schema.add_field("body", DataType.VARCHAR, max_length=MOST_BYTES)
    schema.add_field("flat", DataType.FLOAT_VECTOR, dim=len(FLAT))
    indexes = client.prepare_index_params()
    indexes.add_index("flat", index_type="FLAT", metric_type="IP")
    for name in ("kind", "key", "up", "root", "version", "sha256"):
        indexes.add_index(name, index_type="INVERTED")
    return schema, indexes


def row_of(pk: str, kind: str, body: str, **fields: str) -> dict[str, Any]:
    """A row of `meta`, `docs` or `texts`; what is not named is empty."""
    names = ("key", "up", "root", "version", "doc", "sha256", "language", "source")
    return {
        "pk": pk,
        "kind": kind,
        "body": body,
        "flat": FLAT,
        **dict.fromkeys(names, ""),
        **fields,
    }


def make_chunks(client: Any, dimension: int, *, exact: bool) -> tuple[Any, Any]:
    """Schema and indexes of `chunks`.

    `terms` holds our own search terms, each as letters and digits, so that any tokenizer takes
    them as they are; Milvus makes the sparse vectors of them.
    """
    from pymilvus import DataType, Function, FunctionType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("pk", DataType.VARCHAR, is_primary=True, max_length=_HASHED)
    for name in ("doc", "root", "version", "content_hash", "embedded"):
        schema.add_field(name, DataType.VARCHAR, max_length=_HASHED)
    for name in ("language", "document_language"):
        schema.add_field(name, DataType.VARCHAR, max_length=8)
    for name in ("key", "source", "title", "container", "body", "text"):
        schema.add_field(name, DataType.VARCHAR, max_length=MOST_BYTES)
    for name in ("page", "start", "end", "chunk_index", "num_terms", "spot"):
        schema.add_field(name, DataType.INT64)
    for name in ("added_at", "mtime"):
        schema.add_field(name, DataType.DOUBLE)
    schema.add_field("is_text", DataType.BOOL)
    schema.add_field("extra", DataType.JSON)
    schema.add_field(
        "terms",
        DataType.VARCHAR,
        max_length=MOST_BYTES,
        enable_analyzer=True,
        enable_match=True,
        analyzer_params={"tokenizer": "standard"},
    )
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(
        Function(
            name="bm25",
            function_type=FunctionType.BM25,
            input_field_names=["terms"],
            output_field_names=["sparse"],
        )
    )
    indexes = client.prepare_index_params()
    kind = "FLAT" if exact else "AUTOINDEX"  # what a cluster finds right for its size
    indexes.add_index("vector", index_type=kind, metric_type="IP")
    indexes.add_index(
        "sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25", params=_BM25
    )
    for name in ("doc", "root", "version", "key", "language", "embedded"):
        indexes.add_index(name, index_type="INVERTED")
    return schema, indexes
