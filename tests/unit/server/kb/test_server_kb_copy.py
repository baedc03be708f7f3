"""`POST /kb/{name}/copy`: the same knowledge base once more, whole or not at all."""

import threading

import pytest

from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge import copying

LEAVE = b"# Leave\n\nParental leave is sixteen weeks.\n"
CANTEEN = b"# Canteen\n\nThe canteen serves lunch from noon to two.\n"
URL = "/kb/notes/copy"


@pytest.fixture(params=["faiss", "milvus"])
def store(request, monkeypatch, tmp_path):
    if request.param == "milvus":
        pytest.importorskip("milvus_lite")
        monkeypatch.setenv("GLM_RAG_STORE__BACKEND", "milvus")
        monkeypatch.setenv("GLM_RAG_STORE__URI", str(tmp_path / "kb.db"))


@pytest.fixture
def filled(store, client, upload):
    upload(("leave.md", LEAVE), ("canteen.md", CANTEEN), ("torn.pdf", b"%PDF-1.7 torn"))
    client.put("/kb/notes/prompt", json={"templates": {"en": {"page": " p{page}"}}})
    return client


def copy(client, to="copy", wait=30):
    response = client.post(URL, json={"to": to}, params={"wait": wait})
    assert response.status_code in (200, 202), response.text
    return response.json()


def names(client):
    return [kb["name"] for kb in client.get("/kb").json()["knowledge_bases"]]


def test_a_copy_is_a_knowledge_base_of_its_own(filled, words):
    job = copy(filled, "copy 二")
    assert (job["state"], job["result"]["to"], job["result"]["num_documents"]) == (
        "done", "copy 二", 2,
    )  # fmt: skip
    assert job["progress"] == job["progress"] | {"step": "copying", "done": 2, "total": 2}
    first, second = (filled.get(f"/kb/{name}").json() for name in ("notes", "copy 二"))
    same = ("num_documents", "num_chunks", "num_failures", "embeddings", "languages")
    assert [first[name] for name in same] == [second[name] for name in same]
    assert filled.get("/kb/copy 二/prompt").json()["own"] == {"en": {"page": " p{page}"}}
    assert filled.post("/kb/copy 二/verify?wait=30").json()["result"]["num_findings"] == 0
    source = job_source(filled)
    assert filled.delete("/kb/copy 二/document", params={"source": source}).status_code == 200
    # The upload is the first one's.
    again = filled.post("/kb/notes/ingest", json={}, params={"wait": 30}).json()["result"]
    assert (again["num_skipped"], again["num_deleted"]) == (3, 0)


def job_source(client):
    found = client.get("/kb/notes/documents", params={"q": "leave"}).json()
    return found["documents"][0]["source"]


def test_a_copy_that_ends_early_leaves_nothing_and_may_be_made_again(filled, monkeypatch, until):
    began, goes_on = threading.Event(), threading.Event()

    def breaks(source, target, **_):
        target.write_file(source.read_file(next(iter(source.known_sources()))))
        raise KnowledgeBaseError("the disk is full")

    def holds(source, target, *, on_progress):
        began.set()
        goes_on.wait(20)
        on_progress(0, 1)

    with monkeypatch.context() as patch:
        patch.setattr(copying, "copy", breaks)
        job = copy(filled)
        assert (job["state"], job["error"]) == ("failed", "the disk is full")
        patch.setattr(copying, "copy", holds)
        at = f"/kb/notes/jobs/{copy(filled, wait=0)['id']}"
        until(began.is_set)
        # Meanwhile nobody takes the name, by whatever way.
        assert filled.post("/kb", json={"name": "copy"}).status_code == 409
        assert filled.post(URL, json={"to": "copy"}).status_code == 409
        assert filled.delete(at).json()["stopping"]
        goes_on.set()
        until(lambda: filled.get(at).json()["state"] == "stopped")
    assert names(filled) == ["notes"]
    assert copy(filled)["state"] == "done"
    assert filled.post(URL, json={"to": "copy"}).status_code == 409


def test_a_copy_needs_a_name_that_is_one_and_a_source(client):
    for name in ("..", "a/b", "", "x" * 65):
        response = client.post(URL, json={"to": name})
        assert response.status_code == 400, name
    assert client.post(URL, json={"to": "notes"}).json()["error"]["param"] == "to"
    assert client.post("/kb/gone/copy", json={"to": "a"}).status_code == 404
