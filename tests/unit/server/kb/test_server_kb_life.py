"""A knowledge base from its making to its deletion, all over HTTP; who may do which part of it."""

from glm_rag.types.plain import to_plain
from glm_rag_server.keys import KeyStore

LEAVE = b"# Leave\n\nParental leave is sixteen weeks.\n"
CANTEEN = b"# Canteen\n\nThe canteen serves lunch from noon to two.\n"
CHINESE = "# 年假\n\n员工每年有十五天年假。\n".encode()


def found(client, query, kb="notes", **more):
    response = client.post(f"/kb/{kb}/search", json={"query": query, **more})
    assert response.status_code == 200, response.text
    return response.json()


def test_a_knowledge_base_is_made_filled_searched_checked_and_deleted(client, upload, home):
    job = upload(("leave.md", LEAVE), ("年假.md", CHINESE), ("torn.pdf", b"%PDF-1.7 torn"))
    assert job["state"] == "done"
    assert (job["result"]["num_added"], job["result"]["num_failures"]) == (2, 1)
    leave, _, torn = (file["source"] for file in job["files"])
    (failure,) = client.get("/kb/notes/failures").json()["failures"]
    assert failure["source"] == torn
    assert failure["error"].startswith("corrupt: ")
    info = client.get("/kb/notes").json()
    assert (info["num_documents"], info["num_failures"]) == (2, 1)
    assert str(home) not in client.get("/kb").text

    hit = found(client, "How long is parental leave?")["passages"][0]
    assert (hit["source"], hit["rank"]) == (leave, 1)
    document = client.get("/kb/notes/document", params={"source": leave, "passages": True}).json()
    assert document["text"][hit["start"] : hit["end"]] == hit["text"]
    assert document["passages"][0]["id"] == hit["id"]
    part = {"source": leave, "start": 2, "length": 5}
    assert client.get("/kb/notes/document", params=part).json()["text"] == "Leave"

    assert upload(("leave.md", CANTEEN))["result"]["num_updated"] == 1
    assert client.get("/kb/notes/document", params={"source": leave}).json()["title"] == "Canteen"
    assert client.post("/kb/notes/verify?wait=30").json()["result"]["num_findings"] == 0
    rebuilt = client.post("/kb/notes/rebuild?wait=30", json={"embed": True}).json()
    assert (rebuilt["state"], rebuilt["result"]["num_chunks"]) == ("done", 2)
    assert found(client, "When is lunch in the canteen?")["passages"][0]["source"] == leave

    for source in (leave, torn):
        assert client.delete("/kb/notes/document", params={"source": source}).status_code == 200
    assert client.get("/kb/notes/failures").json() == {"failures": []}
    assert [path.name for path in (home / "uploads" / "notes").iterdir()] == ["年假.md"]
    assert client.delete("/kb/notes").json() == {"deleted": "notes"}
    assert not (home / "uploads" / "notes").exists()
    for path in ("", "/documents", "/jobs", "/document?source=x", "/failures"):
        assert client.get(f"/kb/notes{path}").status_code == 404
    assert client.get("/kb").json() == {"knowledge_bases": []}


def test_search_gives_what_the_retriever_gives_and_why(client, upload):
    from glm_rag.build import build_retriever, open_knowledge_base
    from glm_rag.config import load_config

    upload(("leave.md", LEAVE), ("canteen.md", CANTEEN), ("年假.md", CHINESE))
    question = "When does the canteen serve lunch?"
    with open_knowledge_base(load_config(), "notes") as kb:
        expected = build_retriever(load_config(), kb).search(question, 2)
    result = found(client, question, k=2, explain=True)
    assert [(hit["id"], hit["score"]) for hit in result["passages"]] == [
        (item.document.id, to_plain(item.score)) for item in expected
    ]
    candidates = result["explanation"]["candidates"]
    assert [item["fused_rank"] for item in candidates] == [1, 2, 3]
    assert "canteen" in candidates[0]["terms"]
    only = found(client, question, filter={"document_language": "zh"})["passages"]
    assert [hit["title"] for hit in only] == ["年假"]
    assert found(client, "Hello!")["passages"] == []


def test_documents_come_in_pages_and_can_be_looked_for(client, upload):
    upload(
        *((f"{n} 号.md", f"# Note {n}\n\nNumber {n}.".encode()) for n in range(5)),
        ("x.md", CHINESE),
    )

    def page(**query):
        given = client.get("/kb/notes/documents", params=query).json()
        return given["total"], [document["title"] for document in given["documents"]]

    assert page(offset=1, limit=2) == (6, ["Note 1", "Note 2"])
    assert page(q="NOTE", offset=4) == (5, ["Note 4"])
    assert page(q="3 号") == (1, ["Note 3"])
    assert page(language="zh") == (1, ["年假"])
    assert page(offset=100) == (6, [])


def test_a_renamed_one_keeps_uploads_and_an_export_makes_another(client, upload):
    upload(("leave.md", LEAVE))
    assert client.patch("/kb/notes", json={"name": "规章 2024"}).json()["name"] == "规章 2024"
    assert client.get("/kb/notes").status_code == 404
    again = upload(("leave.md", LEAVE), kb="规章 2024")
    assert again["result"]["num_skipped"] == 1
    export = client.get("/kb/规章 2024/export")
    octets = {"content-type": "application/octet-stream"}
    made = client.post("/kb/import?name=copy", content=export.content, headers=octets)
    assert (made.status_code, made.json()["num_documents"]) == (201, 1)
    assert found(client, "How long is parental leave?", kb="copy")["passages"]
    taken = client.post("/kb/import?name=copy", content=export.content, headers=octets)
    assert taken.status_code == 409
    torn = client.post("/kb/import?name=torn", content=export.content[:-4096], headers=octets)
    assert torn.status_code == 400
    assert "damaged" in torn.json()["error"]["message"]
    for name in ("copy", "规章 2024"):
        assert client.post("/kb", json={"name": name}).status_code == 409
        assert client.patch("/kb/copy", json={"name": "规章 2024"}).status_code == 409


def test_a_damaged_one_is_listed_with_its_reason_and_can_be_deleted(client, home):
    assert client.post("/kb", json={"name": "good"}).status_code == 201
    (home / "kb" / "notes" / "library.sqlite").write_bytes(b"no database at all" * 100)
    good, damaged = client.get("/kb").json()["knowledge_bases"]
    assert (good["error"], damaged["name"]) == ("", "notes")
    assert "damaged" in damaged["error"]
    assert str(home) not in damaged["error"]
    assert client.get("/kb/notes").status_code == 409
    assert client.delete("/kb/notes").status_code == 200


def test_citations_are_checked_against_the_stored_text(client, upload):
    upload(("leave.md", LEAVE))
    hit = found(client, "How long is parental leave?")["passages"][0]
    good = {
        "source": hit["source"],
        "chunk_id": hit["id"],
        "start": 9,
        "end": 17,
        "quote": "Parental",
    }
    bad = {**good, "quote": "Maternal", "title": "Leave"}
    url = "/kb/notes/verify/citations"
    result = client.post(url, json={"citations": [good, bad]}).json()
    assert result["num_citations"] == 2
    assert [finding["check"] for finding in result["findings"]] == ["citation"]


def test_server_folders_are_read_only_where_the_operator_allows_it(serve, tmp_path):
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "leave.md").write_bytes(LEAVE)
    (tmp_path / "secret.md").write_bytes(CANTEEN)
    (allowed / "link.md").symlink_to(tmp_path / "secret.md")
    client = serve(allowed_folders=(allowed,))
    client.post("/kb", json={"name": "notes"})

    def read(*paths, **more):
        body = {"paths": [str(path) for path in paths], **more}
        return client.post("/kb/notes/ingest?wait=30", json=body)

    report = read(allowed).json()["result"]
    assert (report["num_added"], report["num_failures"]) == (1, 1)
    for outside in (tmp_path, allowed / "..", tmp_path / "secret.md", "/etc", "a\0b", ""):
        assert read(outside).status_code == 400
    assert read(allowed / "gone.md").status_code == 400
    (allowed / "leave.md").unlink()
    (allowed / "new.md").write_bytes(CANTEEN)
    assert read(allowed, exclude=["link.md"], prune=True).json()["result"]["num_deleted"] == 1
    assert read(allowed, include=["[z-a]"]).status_code == 400
    # Without paths it is the uploads, of which there are none.
    assert read().status_code == 400


# ---------------------------------------------------------------- scopes

SCOPES = {
    ("GET", "/kb"): "read",
    ("POST", "/kb"): "admin",
    ("POST", "/kb/import"): "admin",
    ("GET", "/kb/{name}"): "read",
    ("PATCH", "/kb/{name}"): "admin",
    ("DELETE", "/kb/{name}"): "admin",
    ("GET", "/kb/{name}/documents"): "read",
    ("POST", "/kb/{name}/documents"): "write",
    ("GET", "/kb/{name}/document"): "read",
    ("DELETE", "/kb/{name}/document"): "write",
    ("GET", "/kb/{name}/failures"): "read",
    ("POST", "/kb/{name}/ingest"): "write",
    ("GET", "/kb/{name}/jobs"): "read",
    ("GET", "/kb/{name}/jobs/{job_id}"): "read",
    ("GET", "/kb/{name}/jobs/{job_id}/events"): "read",
    ("DELETE", "/kb/{name}/jobs/{job_id}"): "write",
    ("POST", "/kb/{name}/search"): "read",
    ("POST", "/kb/{name}/verify"): "write",
    ("POST", "/kb/{name}/verify/citations"): "read",
    ("POST", "/kb/{name}/rebuild"): "admin",
    ("GET", "/kb/{name}/export"): "admin",
    ("POST", "/kb/{name}/copy"): "admin",
    ("POST", "/kb/{name}/warm"): "write",
    ("GET", "/kb/{name}/prompt"): "read",
    ("PUT", "/kb/{name}/prompt"): "admin",
    ("DELETE", "/kb/{name}/prompt"): "admin",
    ("GET", "/kb/{name}/feedback"): "admin",
}


def kb_routes(client):
    paths = client.app.openapi()["paths"]
    return {
        (method.upper(), path)
        for path, methods in paths.items()
        if path.startswith("/kb")
        for method in methods
    }


def test_every_route_asks_for_its_scope_and_nothing_happens_without(serve, home):
    keys = KeyStore(home / "keys.sqlite")
    shown = {scope: keys.create(scope, scope) for scope in ("read", "write", "admin")}
    client = serve(keys)
    assert kb_routes(client) == set(SCOPES)
    headers = {scope: {"Authorization": f"Bearer {key}"} for scope, key in shown.items()}
    order = ["read", "write", "admin"]
    for (method, path), needed in SCOPES.items():
        url = path.format(name="gone", job_id="gone")
        assert client.request(method, url).status_code == 401
        for scope in order:
            response = client.request(method, url, headers=headers[scope], params={"source": "x"})
            is_refused = response.status_code == 403
            assert is_refused == (order.index(scope) < order.index(needed)), (method, path, scope)
    assert client.post("/kb", json={"name": "a"}, headers=headers["write"]).status_code == 403
    assert client.get("/kb", headers=headers["read"]).json() == {"knowledge_bases": []}


# ---------------------------------------------------------------- bad input


BAD_NAMES = ["..", "../x", "a/b", "", "/etc", ".hidden", "a\0b", "x" * 65, "x" * 5000, "汉" * 70]


def test_a_name_that_could_leave_the_data_folder_is_refused(client, home):
    for name in BAD_NAMES:
        assert client.post("/kb", json={"name": name}).status_code == 400, name
        assert client.patch("/kb/notes", json={"name": name}).status_code == 400, name
    assert [path.name for path in (home / "kb").iterdir()] == ["notes"]


BAD_ADDRESSES = (
    ["/kb/%00", "/kb/%ff%fe", "/kb/..%2f..%2fetc", "/kb/%2e%2e/documents", f"/kb/{'x' * 3000}"]
    + [f"/kb/notes/document?source={s}" for s in ("%00", "%ff", "file:///etc/passwd", "x" * 20000)]
    + [
        f"/kb/notes/documents?{q}"
        for q in ("offset=-1", "offset=9e99", "limit=0", f"offset={10**30}")
    ]
    + ["/kb/notes/documents?language=xx", "/kb/notes/jobs/%00", "/kb/notes/x"]
)


def test_bad_addresses_get_4xx(client):
    for path in BAD_ADDRESSES:
        assert 400 <= client.get(path).status_code < 500, path


BAD_SEARCHES = [
    '{"query": "a\\ud800b"}',
    '{"query": "a\\u0000b"}',
    '{"query": ""}',
    '{"query": " \\n\u3000"}',
    '{"query": "x", "k": 0}',
    '{"query": "x", "k": 1e99}',
    '{"query": "leave", "filter": {"title": "\\ud800"}}',
    '{"query": "leave", "filter": {"\\udfff": 1}}',
    '{"query": "leave", "filter": {"a\\"b": 1}}',
    '{"query": "leave", "filter": {"path": "a\\u0000b"}}',
    '{"query": "leave", "filter": {"path": {"gt": 1}}}',
    '{"query": "leave", "filter": {"page": 1' + "0" * 40 + "}}",
    '{"query": "leave", "filter": {"added_at": "yesterday"}}',
    '{"query": "leave", "filter": {"title": {"like": "x"}}}',
    '{"query": "leave", "filter": {"title": [[["x"]]]}}',
    '{"query": "leave", "filter": {"title": ' + "[" * 500 + "]" * 500 + "}}",
    '{"query": "leave", "filter": {' + ",".join(f'"k{n}": 1' for n in range(60)) + "}}",
    '{"query": "leave", "filter": {"title": [' + ",".join(["1"] * 12000) + "]}}",
    '{"query": "x", "unknown": 1}',
    '{"query": ' + "1" * 5000 + "}",
    "[" * 5000,
    "{}",
    "nonsense",
    "",
]


def test_work_that_needs_no_body_takes_none(client, upload):
    upload(("leave.md", LEAVE))
    for path in ("rebuild", "ingest"):
        job = client.post(f"/kb/notes/{path}?wait=30")
        assert (job.status_code, job.json()["state"]) == (200, "done"), job.text
    assert client.post("/kb/notes/warm").status_code == 503  # it needs a model, not a body


def test_bad_searches_get_400(client, upload):
    upload(("leave.md", LEAVE))
    json = {"content-type": "application/json"}
    for body in BAD_SEARCHES:
        response = client.post("/kb/notes/search", content=body, headers=json)
        assert response.status_code == 400, (body[:100], response.text)
        assert response.json()["error"]["message"]
