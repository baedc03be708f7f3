"""The Python blocks of docs/langchain.md run, with stand-ins for the models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage

import glm_rag
from fakes import ScriptedEngine
from glm_rag.knowledge.base import KnowledgeBase

PAGE = Path(__file__).resolve().parents[3] / "docs" / "langchain.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
REPLY = "Parental leave is 26 weeks for every employee."


class ToolCallingModel(GenericFakeChatModel):
    """Plays back messages, some of which call tools."""

    def bind_tools(self, tools, **kwargs):
        return self


@pytest.fixture
def stand_ins(monkeypatch):
    """The names a page takes from glm_rag, without weights; `created` collects the engines."""
    engine = ScriptedEngine([REPLY])
    chat, completion, open_kb = glm_rag.ChatGLM2, glm_rag.ChatGLM2LLM, KnowledgeBase.open
    monkeypatch.setattr(glm_rag, "ChatGLM2", lambda **s: chat(engine=engine, **s), raising=False)
    monkeypatch.setattr(
        glm_rag, "ChatGLM2LLM", lambda **s: completion(engine=engine, **s), raising=False
    )
    embeddings = DeterministicFakeEmbedding(size=16)
    opened = []

    def open_with_fake_embeddings(name, **options):
        opened.append(open_kb(name, embeddings=embeddings, **options))
        return opened[-1]

    monkeypatch.setattr(KnowledgeBase, "open", open_with_fake_embeddings)
    yield engine
    for kb in opened:
        kb.close()


def test_every_block_of_the_page_runs(stand_ins):
    call = {"name": "search_handbook", "args": {"query": "parental leave"}, "id": "1"}
    replies = iter([AIMessage("", tool_calls=[call]), AIMessage(REPLY)])
    names: dict[str, object] = {"agent_model": ToolCallingModel(messages=replies)}
    assert len(BLOCKS) >= 7
    for number, block in enumerate(BLOCKS, start=1):
        exec(compile(block, f"langchain.md, block {number}", "exec"), names)
    assert names["message"].text == REPLY
    assert names["answer"].citations
    assert REPLY in names["pack_passages"](names["retriever"].invoke("parental leave"))
    found = [m for m in names["result"]["messages"] if isinstance(m, ToolMessage)]
    assert REPLY in found[0].text
    assert names["result"]["messages"][-1].text == REPLY
