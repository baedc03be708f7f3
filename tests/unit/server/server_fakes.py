"""Stand-ins for what a server answers with."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field

import httpx

import ui_fakes
from fakes import ScriptedEngine
from glm_rag.chat_models import ChatGLM2
from glm_rag.errors import KnowledgeBaseNotFoundError
from glm_rag.settings import ServerSettings, Settings
from glm_rag_server.app import create_app
from glm_rag_server.context import Models
from glm_rag_server.server import Server, config_of
from word_embeddings import DIMENSION, WordEmbeddings

LOCAL = "http://127.0.0.1:8000"


@dataclass
class GatedEngine(ScriptedEngine):
    """Answers as a `ScriptedEngine`, each token only while `gate` is open."""

    gate: threading.Event = field(default_factory=threading.Event)
    running: int = 0
    written: int = 0  # tokens, of all answers

    def _stream(self, prompt, reply, params) -> Generator:
        self.running += 1
        try:
            for number, delta in enumerate(super()._stream(prompt, reply, params)):
                self.written += 1
                yield delta
                if number == 0:
                    self.gate.wait(20)
        finally:
            self.running -= 1


class FakeEmbeddings(WordEmbeddings):
    """With what an embedder of ours says of itself."""

    dimension = DIMENSION
    max_tokens = 512

    def count_tokens(self, text: str) -> int:
        """Words."""
        return len(text.split())


class FakeModels(Models):
    """One scripted model, and knowledge bases of which only the answers are real."""

    def __init__(self, settings, engine=None) -> None:
        super().__init__(settings)
        self.engine = engine or ScriptedEngine(["Hello there."])
        self.assistants = {"handbook": ui_fakes.FakeAssistant()}
        self.embedder = FakeEmbeddings()

    def llm(self, name=None):
        """The scripted model."""
        return ChatGLM2(engine=self.engine, temperature=0.0, max_tokens=400)

    def embeddings(self):
        """Vectors of words."""
        return self.embedder

    def knowledge_base(self, name):
        """Something, where there is one."""
        if name not in self.assistants:
            raise KnowledgeBaseNotFoundError(f"no knowledge base {name!r}")
        return object()

    def assistant(self, kb_name, model=None):
        """The stand-in."""
        self.knowledge_base(kb_name)
        return self.assistants[kb_name]

    def knowledge_bases(self):
        """Their names."""
        return sorted(self.assistants)

    def check_model(self) -> None:
        """It is here."""

    def load(self) -> None:
        """It is."""


def client_of(app, **headers):
    """A client of any application."""
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 5000))
    return httpx.AsyncClient(transport=transport, base_url=LOCAL, headers=headers)


def app_with(home, models=None, **server):
    """An application with other server settings."""
    settings = Settings(home=home, server=ServerSettings(**server))
    return create_app(settings, models=models or FakeModels(settings))


@contextlib.contextmanager
def serving(app):
    """The application behind a real port of this computer; gives its address."""
    with running(app) as (_, address):
        yield address


@contextlib.contextmanager
def running(app):
    """As `serving`, with the server itself before its address."""
    server = Server(config_of(app))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        thread = threading.Thread(target=server.run, args=([sock],))
        thread.start()
        try:
            until(lambda: server.started)
            yield server, f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


def until(holds, seconds=30.0):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.005)


def answering_models(settings):
    """A knowledge base of one passage, with a real assistant over it."""
    from langchain_core.documents import Document
    from langchain_core.runnables import RunnableLambda

    from glm_rag.assistant import Assistant

    text = "Parental leave lasts 26 weeks and is open to every parent."
    metadata = {"source": "file:///h.md", "title": "H", "start": 0, "end": len(text), "score": 0.9}
    found = [Document(id="c0", page_content=text, metadata=metadata)]
    models = FakeModels(settings, ScriptedEngine(["Parental leave lasts 26 weeks."]))
    models.assistants["handbook"] = Assistant(RunnableLambda(lambda _: found), models.llm())
    return models


async def post(client, body, path="/v1/chat/completions"):
    return await client.post(path, json=body)


async def events(client, body, path="/v1/chat/completions"):
    """The data of a stream, and its comments."""
    reply = await client.post(path, json={**body, "stream": True})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    blocks = [block for block in reply.text.split("\n\n") if block]
    data = [block.removeprefix("data: ") for block in blocks if block.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(one) for one in data[:-1]]
