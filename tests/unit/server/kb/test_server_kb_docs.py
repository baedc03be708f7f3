"""The page about `/kb` says what there is, and its commands work."""

import argparse
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from test_server_kb_life import SCOPES, kb_routes

from tiny_checkpoints import TINY, write_checkpoint

ROOT = Path(__file__).resolve().parents[4]
PAGE = (ROOT / "docs" / "server-kb.md").read_text("utf-8")

# Every command about knowledge bases: the address that does the same, or why there is none.
COMMANDS = {
    "ingest": ("POST", "/kb/{name}/documents"),
    "search": ("POST", "/kb/{name}/search"),
    "feedback": ("GET", "/kb/{name}/feedback"),
    "kb list": ("GET", "/kb"),
    "kb info": ("GET", "/kb/{name}"),
    "kb documents": ("GET", "/kb/{name}/documents"),
    "kb failures": ("GET", "/kb/{name}/failures"),
    "kb remove": ("DELETE", "/kb/{name}/document"),
    "kb delete": ("DELETE", "/kb/{name}"),
    "kb verify": ("POST", "/kb/{name}/verify"),
    "kb rebuild": ("POST", "/kb/{name}/rebuild"),
    "kb export": ("GET", "/kb/{name}/export"),
    "kb import": ("POST", "/kb/import"),
    "kb rename": ("PATCH", "/kb/{name}"),
    "kb prompt": ("PUT", "/kb/{name}/prompt"),
    "kb warm": ("POST", "/kb/{name}/warm"),
    "kb copy": ("POST", "/kb/{name}/copy"),
}


def test_every_command_about_knowledge_bases_has_an_address_or_a_reason(client):
    import glm_rag.cli.main  # noqa: F401 - registers the commands
    from glm_rag.cli import kb

    named = {
        f"kb {command.name or command.callback.__name__.rstrip('_')}"
        for command in kb.app.registered_commands
    }
    assert len(named) > 10
    assert named <= set(COMMANDS), "say in COMMANDS where it is over HTTP, or why it is not"
    addresses = {where for where in COMMANDS.values() if isinstance(where, tuple)}
    assert addresses <= kb_routes(client)


def test_the_page_lists_every_address_with_its_scope():
    rows = re.findall(r"^\| `(\w+) (/\S*?)(?:\?\S*)?` \| (\w+) \|", PAGE, re.MULTILINE)
    assert {(method, path): scope for method, path, scope in rows} == SCOPES


def curl(client, line, folder):
    """Do what one `curl` command does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    for name in ("--json", "--data-binary", "--data-urlencode", "-o"):
        parser.add_argument(name)
    for name in ("-F", "-H"):
        parser.add_argument(name, action="append", default=[])
    parser.add_argument("-X")
    for name in ("-G", "-N"):
        parser.add_argument(name, action="store_true")
    given = parser.parse_args(shlex.split(line)[1:])
    files = [
        (field, (path, (folder / path).read_bytes()))
        for field, path in (form.split("=@") for form in given.F)
    ]
    content = given.json.encode() if given.json else None
    if given.data_binary:
        content = (folder / given.data_binary.removeprefix("@")).read_bytes()
    headers = dict(header.split(": ") for header in given.H)
    if given.json:
        headers["Content-Type"] = "application/json"
    url = given.url.removeprefix("http://127.0.0.1:8000")
    if given.G:
        name, _, value = given.data_urlencode.partition("=")
        url = str(client.build_request("GET", url, params={name: value}).url)
    method = given.X or ("POST" if content or files else "GET")
    response = client.request(method, url, content=content, files=files or None, headers=headers)
    if given.o:
        (folder / given.o).write_bytes(response.content)
    return response


def test_the_commands_of_the_page_work(serve, tmp_path, home):
    write_checkpoint(home / "models" / "smollm2-135m", replace(TINY, seq_length=4096))
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "leave.md").write_text("# Leave\n\nParental leave is sixteen weeks.\n", "utf-8")
    (docs / "年假.md").write_text("# 年假\n\n员工每年有十五天年假。\n", "utf-8")
    served = tmp_path / "srv"
    served.mkdir()
    client = serve(allowed_folders=(served,))
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").replace("/srv/documents", str(served))
    commands = [line for line in lines.splitlines() if line.startswith("curl ")]
    assert len(commands) > 15
    known = {}
    for command in commands:
        for name, value in known.items():
            command = command.replace(f"${name}", value)
        assert "$" not in command
        response = curl(client, command, docs)
        assert response.status_code < 300, (command, response.text)
        if "files=@" in command:
            known["JOB"] = response.json()["id"]
            known["SOURCE"] = response.json()["files"][0]["source"]
        if "/search" in command:
            assert response.json()["passages"], command
