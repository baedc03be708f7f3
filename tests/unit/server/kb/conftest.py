"""The HTTP API in this process, with an embedder that needs no model."""

import time

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("faiss")


@pytest.fixture
def words(monkeypatch):
    """The embedder behind every knowledge base; its gate holds ingestion up."""
    from word_embeddings import WordEmbeddings

    embeddings = WordEmbeddings()
    monkeypatch.setattr("glm_rag.embeddings.create_embeddings", lambda _settings: embeddings)
    yield embeddings
    embeddings.gate.set()


@pytest.fixture
def serve(words):
    """Makes servers of settings; each ends with the test."""
    from contextlib import ExitStack

    from starlette.testclient import TestClient

    from glm_rag.config import load_config
    from glm_rag_server.app import create_app

    with ExitStack() as stack:

        def start(keys=None, **server):
            settings = load_config()
            settings = settings.model_copy(
                update={"server": settings.server.model_copy(update=server)}
            )
            client = TestClient(create_app(settings, keys), base_url="http://127.0.0.1")
            return stack.enter_context(client)

        yield start
        words.gate.set()


@pytest.fixture
def client(serve):
    """A server without keys that has the empty knowledge base `notes`."""
    client = serve()
    made = client.post("/kb", json={"name": "notes"})
    assert made.status_code == 201, made.text
    return client


@pytest.fixture
def upload(client):
    """Sends files and gives the job, over by default."""

    def send(*files, kb="notes", wait=30, **query):
        form = [("files", (name, data)) for name, data in files]
        response = client.post(f"/kb/{kb}/documents", files=form, params={"wait": wait, **query})
        assert response.status_code in (200, 202), response.text
        return response.json()

    return send


@pytest.fixture
def until():
    """Waits for what becomes true."""

    def wait(condition, seconds=20):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.02)

    return wait
