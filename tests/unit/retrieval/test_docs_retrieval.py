"""docs/retrieval.md says what the program does."""

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

import glm_rag
from glm_rag.config import load_config
from glm_rag.knowledge import filters
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.settings import RetrievalSettings
from glm_rag.types import Chunk, ExtractedDocument

pytest.importorskip("faiss")

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "retrieval.md").read_text(encoding="utf-8")


def test_the_filter_of_the_page_lets_through_what_it_describes(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kb = KnowledgeBase.open(
        "kb", home=home, embeddings=DeterministicFakeEmbedding(size=8), create=True
    )
    text = "Notice period."
    march = datetime(2026, 3, 1).timestamp()
    source = (tmp_path / "docs/hr/notice.md").as_uri()
    right = ExtractedDocument(source, "Leave", text, "0", 9, march, "text/plain", "1")
    others = [
        replace(right, source=(tmp_path / "docs/hr2/notice.md").as_uri(), sha256="1"),
        replace(right, source=f"{source}2", title="Other", sha256="2"),
        replace(right, source=f"{source}3", mtime=0.0, sha256="3"),
    ]
    for document in (right, *others):
        kb.put_document(document, [Chunk(0, len(text), text)])
    asked = []
    monkeypatch.setattr(KnowledgeBase, "open", lambda name: kb)
    monkeypatch.setattr(
        glm_rag, "ask", lambda *given, **options: asked.append(options), raising=False
    )
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    names = {}
    exec(block, names)
    (options,) = asked
    where = load_config(overrides=options["overrides"]).retrieval.filter
    assert where == names["where"]
    found = kb.similarity_search("notice period", k=9, filter=where)
    assert [document.metadata["source"] for document in found] == [source]
    kb.close()


def test_the_page_names_every_setting_and_operator():
    told = set(re.findall(r"\w+", PAGE))
    assert set(RetrievalSettings.model_fields) - {"k", "candidates"} <= told
    assert set(filters._OPERATORS) <= told
    assert {*filters._COLUMNS, "source", "path"} <= told
