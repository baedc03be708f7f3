"""Uploads: whole or not at all, under harmless names, never more in memory than a piece."""

import json

import pytest

pytest.importorskip("fastapi")

from glm_rag_server.errors import ApiError
from glm_rag_server.kb.receiving import Reception

TEXT = b"# Note\n\nA line of text.\n"


def files_in(home):
    folder = home / "uploads" / "notes"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def form(*parts, end="--B--\r\n"):
    """A form with the boundary B of (disposition, bytes)."""
    head = 'Content-Disposition: form-data; name="files"'
    written = [f"--B\r\n{head}{more}\r\n\r\n".encode() + data for more, data in parts]
    return b"\r\n".join([*written, b""]) + end.encode()


def send(client, body, kind="multipart/form-data; boundary=B", url="/kb/notes/documents?wait=20"):
    return client.post(url, content=body, headers={"content-type": kind})


NAMES = {
    "../../x.md": "x.md",
    "/etc/x.md": "(2) x.md",
    "C:\\\\temp\\\\x.md": "(3) x.md",
    "a\0b.md": "a b.md",
    ".ssh": "ssh",
    "..": "document",
    "": "(2) document",
    "员工 手册.md": "员工 手册.md",
    "a" * 300 + ".md": "a" * 147 + ".md",
    "\u202egnp.md": "gnp.md",
}


def test_any_name_becomes_a_harmless_one_in_the_folder_of_uploads(client, home):
    response = send(client, form(*((f'; filename="{name}"', TEXT) for name in NAMES)))
    assert response.status_code == 200, response.text
    assert files_in(home) == sorted(NAMES.values())
    given = [file["source"] for file in response.json()["files"]]
    folder = home / "uploads" / "notes"
    assert given == [(folder / kept).as_uri() for kept in NAMES.values()]
    documents = client.get("/kb/notes/documents").json()["documents"]
    assert {source for one in documents for source in (one["source"], *one["copies"])} == set(given)


def test_files_of_one_name_get_numbers_in_a_request_and_replace_earlier_ones(upload, home):
    job = upload(("a.md", TEXT), ("x/a.md", TEXT + b"Two."))
    assert [file["name"] for file in job["files"]] == ["a.md", "x/a.md"]
    assert (job["result"]["num_added"], files_in(home)) == (2, ["(2) a.md", "a.md"])
    again = upload(("a.md", TEXT), ("(2) a.md", TEXT + b"Three."))
    assert (again["result"]["num_skipped"], again["result"]["num_updated"]) == (1, 1)


def test_a_file_that_failed_is_read_again_when_it_is_sent_again_or_that_is_asked_for(
    client, upload
):
    torn = ("torn.pdf", b"%PDF-1.7 torn")
    assert upload(torn)["result"]["num_failures"] == 1
    assert upload(torn)["result"]["num_failures"] == 1

    def again(**options):
        return client.post("/kb/notes/ingest?wait=20", json=options).json()["result"]

    assert again()["num_failed_before"] == 1
    assert again(retry_failed=True)["num_failures"] == 1


@pytest.mark.parametrize("chunked", [False, True])
def test_too_much_gets_413_and_leaves_nothing_behind(serve, home, chunked):
    client = serve(upload_mb=1)
    client.post("/kb", json={"name": "notes"})
    body = form(('; filename="small.md"', TEXT), ('; filename="a.md"', b"x" * 1_200_000))
    pieces = (body[at : at + 50_000] for at in range(0, len(body), 50_000))
    response = send(client, pieces if chunked else body)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "too_large"
    assert files_in(home) == []
    assert client.get("/kb/notes/jobs").json() == {"jobs": []}


REFUSED = [
    (form(('; filename="a.md"', TEXT), end=""), None, 400),  # broken off
    (form(("", b"no file")), None, 400),
    (form(('; filename="a.md"', TEXT), ("", b"no file")), None, 400),
    (form(), None, 400),
    (b"--B\r\nnonsense", None, 400),
    (b"\r\n" * 100, None, 400),
    (b"--B\r\n" + b"X-H: " + b"y" * 10_000 + b"\r\n\r\n", None, 400),
    (b"", None, 400),
    (form(('; filename="a.md"', TEXT)), "multipart/form-data", 400),
    (form(('; filename="a.md"', TEXT)), f"multipart/form-data; boundary={'B' * 200}", 400),
    (form(('; filename="a.md"', TEXT)), "multipart/form-data; boundary=other", 400),
    (TEXT, "text/markdown", 415),
    (b"{}", "application/json", 415),
]


def test_what_is_no_form_with_files_is_refused_and_leaves_nothing(client, home):
    for body, kind, status in REFUSED:
        response = send(client, body, kind or "multipart/form-data; boundary=B")
        assert response.status_code == status, (body[:100], response.text)
        assert files_in(home) == []


def test_an_upload_into_nothing_is_refused_before_it_is_read(client, home):
    response = send(client, form(('; filename="a.md"', TEXT)), url="/kb/other/documents")
    assert response.status_code == 404
    assert not (home / "uploads").exists()


def test_bytes_are_on_the_disk_before_the_last_ones_have_come(tmp_path):
    reception = Reception(b"B", tmp_path / "in")
    begin, end = form(('; filename="a.bin"', b"CUT")).split(b"CUT")
    reception.feed(begin)
    for _ in range(32):
        reception.feed(b"x" * (1 << 20))
    (part,) = (tmp_path / "in").iterdir()
    assert part.stat().st_size > 31 << 20
    with pytest.raises(ApiError, match="broke off"):
        reception.keep()
    reception.feed(end)
    ((name, path),) = reception.keep()
    assert (name, path.name, path.stat().st_size) == ("a.bin", "a.bin", 32 << 20)


async def test_a_client_that_vanishes_leaves_nothing_behind(client, home):
    body = form(('; filename="a.md"', TEXT * 100))
    messages = [
        {"type": "http.request", "body": body[:500], "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent = []

    async def receive():
        return messages.pop(0) if len(messages) > 1 else messages[0]

    async def take(message):
        sent.append(message)

    headers = [
        (b"host", b"127.0.0.1"),
        (b"content-type", b"multipart/form-data; boundary=B"),
    ]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/kb/notes/documents",
        "raw_path": b"/kb/notes/documents",
        "query_string": b"",
        "headers": headers,
        "http_version": "1.1",
        "scheme": "http",
    }
    await client.app(scope, receive, take)
    assert sent[0]["status"] == 400
    assert json.loads(sent[1]["body"])["error"]["message"].startswith("the upload broke off")
    assert files_in(home) == []
    assert client.get("/kb/notes/jobs").json() == {"jobs": []}


def test_a_full_disk_is_told_and_leaves_nothing_behind(client, home, monkeypatch):
    import errno

    from glm_rag.knowledge.uploads import IncomingFile

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(IncomingFile, "write", full)
    response = send(client, form(('; filename="a.md"', TEXT)))
    assert response.status_code == 507
    assert files_in(home) == []
