"""The words of prompts over HTTP, and that whatever was made with them goes when they do."""

import json

import pytest

from glm_rag.templates import TEMPLATES

LEAVE = b"# Leave\n\nParental leave is sixteen weeks.\n"
URL = "/kb/notes/prompt"


def page(client, kb="notes"):
    return client.get(f"/kb/{kb}/prompt").json()["templates"]["en"]["page"]


def give(client, text, kb="notes"):
    response = client.put(f"/kb/{kb}/prompt", json={"templates": {"en": {"page": text}}})
    assert response.status_code == 200, response.text
    return response.json()


def test_words_are_given_shown_replaced_and_dropped(client):
    assert client.get(URL).json()["own"] == {}
    given = give(client, " 第{page}頁 p.")
    assert given["own"] == {"en": {"page": " 第{page}頁 p."}}
    assert given == client.get(URL).json()
    assert given["templates"]["zh"] == TEMPLATES["zh"].model_dump()
    # What is not named goes back to the settings' words.
    client.put(URL, json={"templates": {"zh": {"page": "{page}"}}})
    assert page(client) == TEMPLATES["en"].page
    for _ in range(2):
        dropped = client.delete(URL).json()
        assert (dropped["own"], dropped["templates"]["zh"]) == ({}, TEMPLATES["zh"].model_dump())


def test_all_that_is_shown_can_be_given_back(client):
    shown = client.get(URL).json()["templates"]
    given = client.put(URL, json={"templates": shown}).json()
    assert given["templates"] == given["own"] == shown


@pytest.mark.parametrize(
    ("templates", "named"),
    [
        ({"en": {"page": "no placeholder"}}, "en.page"),
        ({"en": {"pgae": "{page}"}}, "en.pgae"),
        ({"en": {"system": "x" * 5000 + "{refusal}"}}, "en.system"),
        ({"en": {"page": "{page}\ud800"}}, ""),
        ({"en": {"page": "{page}\0"}}, ""),
        ({"en": {"page": 3}}, "en.page"),
        ({"en": {"example": {"title": [[[[1]]]]}}}, ""),
        ({"fr": {}}, "`fr`"),
        ({"en": "text"}, ""),
        ({}, ""),
        ("text", ""),
    ],
)
def test_words_that_cannot_be_used_change_nothing(client, home, templates, named):
    give(client, " ours {page}")
    headers = {"content-type": "application/json"}  # half a character is sent as it is
    body = json.dumps({"templates": templates})
    response = client.put(URL, content=body, headers=headers)
    error = response.json()["error"]
    assert (response.status_code, error["param"].partition(".")[0]) == (400, "templates")
    assert named in error["message"]
    assert str(home) not in error["message"]
    assert page(client) == " ours {page}"


def test_who_has_no_such_knowledge_base_gets_404(client):
    for method in ("get", "put", "delete"):
        more = {"json": {"templates": {"en": {"page": "{page}"}}}} if method == "put" else {}
        assert getattr(client, method)("/kb/gone/prompt", **more).status_code == 404


# ---------------------------------------------------------------- what is made with them


@pytest.fixture
def read(monkeypatch):
    """The words that the model's own second look read passages in, question by question."""
    words = []

    class Engine:
        def score(self, prompt, continuation):
            return -1.0

    def prompt(_llm, question, _document, _language, templates):
        words.append(templates["en"].page)
        return [1, 2, len(question)]

    monkeypatch.setenv("GLM_RAG_RETRIEVAL__RERANK", "likelihood")
    monkeypatch.setattr("glm_rag.passage_prompt.passage_prompt", prompt)
    monkeypatch.setattr("glm_rag.chat_models.ChatGLM2.open", lambda self, model=None: Engine())

    def last():
        seen, words[:] = set(words), []
        assert len(seen) == 1
        return seen.pop()

    return last


def test_the_second_look_reads_in_the_words_of_now(read, serve, home):
    client = serve()
    models = client.app.state.context.models

    def fill():
        client.post("/kb", json={"name": "notes"})
        client.post("/kb/notes/documents?wait=30", files=[("files", ("leave.md", LEAVE))])

    def search():
        found = client.post("/kb/notes/search", json={"query": "How long is parental leave?"})
        assert found.json()["passages"]
        by_search = read()
        models.assistant("notes").retriever.invoke("How long is parental leave?")
        assert read() == by_search
        return by_search

    fill()
    assert search() == TEMPLATES["en"].page
    give(client, " ours {page}")
    assert search() == " ours {page}"
    # Also where somebody else changes them, with the command line.
    (home / "kb" / "notes" / "prompt.yaml").write_text("en: {page: ' mine {page}'}")
    assert search() == " mine {page}"
    assert client.delete("/kb/notes").status_code == 200
    fill()
    assert search() == TEMPLATES["en"].page


def test_one_cross_encoder_serves_all_knowledge_bases(serve, monkeypatch):
    monkeypatch.setenv("GLM_RAG_RETRIEVAL__RERANK", "cross-encoder")
    monkeypatch.setenv("GLM_RAG_RETRIEVAL__RERANK_MODEL", "any")
    client = serve()
    models = client.app.state.context.models
    rerankers = set()
    for name in ("one", "two"):
        client.post("/kb", json={"name": name})
        rerankers |= {models.retriever(name).reranker, models.assistant(name).retriever.reranker}
    assert len(rerankers) == 1
