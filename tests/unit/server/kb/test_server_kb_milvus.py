"""`/kb` over a file of milvus-lite: what moves a whole knowledge base works there, too."""

import pytest

pytest.importorskip("milvus_lite")

LEAVE = b"# Leave\n\nParental leave lasts 26 weeks."
OCTETS = {"content-type": "application/octet-stream"}


@pytest.fixture(autouse=True)
def milvus(monkeypatch, tmp_path):
    monkeypatch.setenv("GLM_RAG_STORE__BACKEND", "milvus")
    monkeypatch.setenv("GLM_RAG_STORE__URI", str(tmp_path / "kb.db"))


def test_a_new_name_keeps_the_uploads_and_an_export_makes_another(client, upload, home):
    upload(("leave.md", LEAVE))
    assert client.patch("/kb/notes", json={"name": "rules"}).json()["num_documents"] == 1
    assert client.get("/kb/notes").status_code == 404
    again = client.post("/kb/rules/ingest", json={}, params={"wait": 30}).json()
    assert again["result"]["num_skipped"] == 1
    export = client.get("/kb/rules/export")
    made = client.post("/kb/import?name=copy", content=export.content, headers=OCTETS)
    assert (made.status_code, made.json()["num_documents"]) == (201, 1)
    found = client.post("/kb/copy/search", json={"query": "parental leave"}).json()
    assert "26 weeks" in found["passages"][0]["text"]
    assert not (home / "kb").exists()


def test_one_that_is_deleted_and_made_anew_by_somebody_else_is_another(client, upload):
    from glm_rag.build import open_knowledge_base
    from glm_rag.config import load_config
    from glm_rag.stores import delete_knowledge_base

    upload(("leave.md", LEAVE))
    delete_knowledge_base(load_config(), "notes")
    assert client.get("/kb/notes").status_code == 404
    models = client.app.state.context.models
    open_knowledge_base(load_config(), "notes", create=True).close()
    before = models.knowledge_base("notes")
    assert models.knowledge_base("notes") is before
    assert client.delete("/kb/notes").status_code == 200
    open_knowledge_base(load_config(), "notes", create=True).close()
    assert models.knowledge_base("notes") is not before
    assert client.get("/kb/notes").json()["num_documents"] == 0
