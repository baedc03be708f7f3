"""The gate before the page: who comes in, with which profile, and what the browser may load."""

import asyncio
import re

import pytest

pytest.importorskip("starlette")

from glm_rag_ui import doorway, gate, passes

TOKEN = "a-token-of-24-characters"
PAGE = b"<html><head><title>Streamlit</title></head><body>behind the gate</body></html>"
BROWSER = {"accept": "text/html", "host": "box:8501"}


async def streamlit(scope, receive, send):
    """Stands for the page: it answers everything, and says what it was asked."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    kind = b"text/html" if scope["path"] in {"/", "/settings"} else b"application/octet-stream"
    headers = [(b"content-type", kind), (b"content-length", b"9"), (b"etag", b"x")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": PAGE[:20], "more_body": True})
    await send({"type": "http.response.body", "body": PAGE[20:]})


class Reply:
    """What a request came to."""

    def __init__(self, messages):
        self.status = messages[0].get("status", messages[0]["type"])
        pairs = [(k.decode(), v.decode()) for k, v in messages[0].get("headers", [])]
        self.headers = dict(pairs)
        self.cookies = dict(
            re.match("([^=]+)=([^;]*)", value).groups()
            for name, value in pairs
            if name == "set-cookie"
        )
        self.cookie_words = [value for name, value in pairs if name == "set-cookie"]
        self.body = b"".join(message.get("body", b"") for message in messages)


def send(door, path="/", *, query="", method="GET", cookies=None, body=b"", kind="http", **headers):
    """One request, as a server would pass it on."""
    named = {**BROWSER, **{name.replace("_", "-"): value for name, value in headers.items()}}
    if cookies:
        named["cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    scope = {
        "type": kind,
        "method": method,
        "scheme": "http",
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        "client": ("10.0.0.9", 1234),
        "server": ("box", 8501),
    }
    if kind == "websocket":
        del scope["method"]
    messages = []

    async def receive():
        return {"type": "http.request", "body": body}

    async def collect(message):
        messages.append(message)

    asyncio.run(door(scope, receive, collect))
    return Reply(messages)


@pytest.fixture
def waits(monkeypatch):
    """How long wrong guesses had to wait; nobody really waits."""
    slept = []
    pause = asyncio.sleep

    async def sleep(seconds):
        slept.append(seconds)
        await pause(0)

    monkeypatch.setattr(passes.asyncio, "sleep", sleep)
    return slept


@pytest.fixture
def closed():
    """A gate that wants a token."""
    return gate.Gate(streamlit, token=TOKEN, port=8501)


@pytest.fixture
def open_():
    """A gate that wants none."""
    return gate.Gate(streamlit)


def typed(door, token, target="/", **headers):
    body = f"token={token}&next={target}".encode()
    return send(door, gate.TOKEN_PATH, method="POST", body=body, **headers)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/_stcore/upload_file/session/file"),
        ("GET", "/_stcore/host-config"),
        ("GET", "/media/picture.png"),
        ("GET", "/static/js/index.js"),
        ("GET", "/settings"),
        ("GET", "/glm-rag/profile/x"),
        ("DELETE", "/"),
    ],
)
def test_without_the_token_nothing_behind_the_gate_is_reached(closed, method, path):
    for accept in ("text/html", "*/*"):
        reply = send(closed, path, method=method, accept=accept)
        assert reply.status == 401
        assert b"behind the gate" not in reply.body


def test_without_the_token_no_live_connection_is_made(closed):
    reply = send(closed, "/_stcore/stream", kind="websocket")
    assert reply.status == "websocket.close"


def test_the_form_tells_nothing_but_that_a_token_is_needed(closed):
    reply = send(closed, "/", query="kb=secret-plans", accept_language="zh-CN,zh")
    form = reply.body.decode()
    assert "访问令牌" in form
    assert TOKEN not in form
    assert form.count("secret-plans") == 1  # where the visitor wanted to go, by his own address
    assert passes.PROFILE_COOKIE not in reply.cookies


def test_the_right_token_opens_and_is_not_what_the_browser_keeps(closed, waits):
    reply = typed(closed, TOKEN, "/settings%3Fkb%3Da")
    assert (reply.status, reply.headers["location"]) == (303, "/settings?kb=a")
    kept = reply.cookies["glm_rag_pass_8501"]
    assert TOKEN not in kept
    assert all("HttpOnly; SameSite=Lax" in words for words in reply.cookie_words)
    assert b"behind the gate" in send(closed, cookies=reply.cookies).body
    accepted = send(closed, "/_stcore/stream", kind="websocket", cookies=reply.cookies)
    assert accepted.status == "websocket.accept"
    assert not waits


def test_a_token_in_the_address_is_taken_out_of_it(closed):
    reply = send(closed, "/settings", query=f"lang=zh&token={TOKEN}&kb=a+b")
    assert (reply.status, reply.headers["location"]) == (303, "/settings?lang=zh&kb=a+b")
    again = send(closed, "/", query=f"token={TOKEN}", cookies=reply.cookies)
    assert (again.status, again.headers["location"]) == (303, "/")


@pytest.mark.parametrize("token", ["wrong", "", TOKEN + "x", "%E4%BB%A4", "x" * 100_000])
def test_a_wrong_token_does_not_open(closed, waits, token):
    reply = typed(closed, token)
    assert reply.status == 403
    assert not reply.cookies
    assert "This is not the token" in reply.body.decode()


def test_each_wrong_guess_makes_the_next_one_wait_longer_and_a_right_one_ends_that(closed, waits):
    for _ in range(12):
        typed(closed, "wrong")
    assert waits[:3] == [1.0, 2.0, 4.0]
    assert max(waits) == 30.0
    typed(closed, TOKEN)
    waits.clear()
    typed(closed, "wrong")
    assert not waits


def test_guesses_of_one_address_at_once_wait_for_each_other(waits):
    door = passes.Doorkeeper(TOKEN)

    async def together():
        return await asyncio.gather(*(door.is_right("wrong", "10.0.0.9") for _ in range(5)))

    assert asyncio.run(together()) == [False] * 5
    assert waits == [1.0, 2.0, 4.0, 8.0]


def test_a_flood_of_guesses_is_not_looked_at(waits):
    door = passes.Doorkeeper(TOKEN)

    async def flood():
        await door.is_right("wrong", "10.0.0.9")
        return await asyncio.gather(*(door.is_right(TOKEN, "10.0.0.9") for _ in range(100)))

    assert sum(asyncio.run(flood())) == door.waiting
    assert not door.queues


def test_a_pass_of_another_token_does_not_open(closed):
    other = passes.Doorkeeper("another-token-of-ours", closed.door.secret).pass_()
    assert send(closed, cookies={"glm_rag_pass_8501": other}).status == 401


def test_whoever_guesses_the_token_cannot_make_its_pass_without_the_server(closed):
    # Else passes could be tried without the waiting that follows a wrong token.
    made = passes.Doorkeeper(TOKEN).pass_()
    assert send(closed, cookies={"glm_rag_pass_8501": made}).status == 401


def test_a_pass_outlives_the_server(tmp_path):
    file = tmp_path / "home" / "page-secret"
    first, second = (
        gate.Gate(streamlit, token=TOKEN, secret=passes.kept_secret(file)) for _ in range(2)
    )
    cookies = {"glm_rag_pass_0": first.door.pass_()}
    assert send(second, cookies=cookies).status == 200
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["page-secret"]


def test_a_damaged_or_unwritable_secret_is_replaced_by_a_new_one(tmp_path):
    (tmp_path / "short").write_bytes(b"x")
    assert len(passes.kept_secret(tmp_path / "short")) == 32
    assert passes.kept_secret(tmp_path / "short") == passes.kept_secret(tmp_path / "short")
    (tmp_path / "folder").mkdir()
    assert len(passes.kept_secret(tmp_path / "folder")) == 32


def test_health_is_told_to_everyone(closed):
    assert send(closed, gate.HEALTH_PATH, accept="*/*").status == 200


@pytest.mark.parametrize("target", ["//evil.example/", "https://evil.example", "/\\evil", "x", ""])
def test_the_form_leads_nowhere_but_to_this_page(target):
    assert doorway.safe_target(target) == "/"


def test_text_in_the_address_cannot_leave_the_form(closed):
    reply = send(closed, "/", query='kb="><script>alert(1)</script>')
    assert b"<script>" not in reply.body


def test_a_browser_gets_a_profile_once_and_keeps_it(open_):
    first = send(open_).cookies[passes.PROFILE_COOKIE]
    assert passes.is_profile(first)
    assert send(open_).cookies[passes.PROFILE_COOKIE] != first
    assert (
        send(open_, cookies={passes.PROFILE_COOKIE: first}).cookies[passes.PROFILE_COOKIE] == first
    )


@pytest.mark.parametrize("forged", ["", "x", "A" * 32, "0" * 31, "0" * 33, "../../../etc/passwd"])
def test_a_profile_that_we_did_not_make_is_replaced(open_, forged):
    kept = send(open_, cookies={passes.PROFILE_COOKIE: forged}).cookies[passes.PROFILE_COOKIE]
    assert kept != forged
    assert passes.is_profile(kept)


@pytest.mark.parametrize("accept", ["*/*", "text/html"])
def test_parts_and_files_of_the_page_are_passed_on_as_they_are(open_, accept):
    reply = send(open_, "/static/js/index.js", accept=accept)
    assert reply.body == PAGE
    assert not reply.cookies
    assert reply.headers["etag"] == "x"


def test_the_browser_is_told_to_load_nothing_from_elsewhere(open_):
    reply = send(open_)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert not re.search(r"https?:|\*", policy)
    assert reply.headers["content-length"] == str(len(reply.body))
    assert b"<title>glm-rag</title>" in reply.body
    assert "etag" not in reply.headers


def test_another_page_of_this_computer_cannot_connect_nor_send(open_):
    foreign = {"origin": "http://box:3000"}
    assert send(open_, "/_stcore/stream", kind="websocket", **foreign).status == "websocket.close"
    assert send(open_, "/_stcore/upload_file/a/b", method="PUT", **foreign).status == 403
    own = {"origin": "http://box:8501"}
    assert send(open_, "/_stcore/stream", kind="websocket", **own).status == "websocket.accept"
    assert send(open_, "/_stcore/upload_file/a/b", method="PUT", **own).status == 200


@pytest.mark.parametrize("origin", ["null", "http://[", "", "http://box:8501.evil", "box:8501"])
def test_an_origin_that_is_no_address_of_ours_is_foreign(open_, origin):
    assert send(open_, "/", method="POST", origin=origin).status == 403
    reply = send(open_, "/_stcore/stream", kind="websocket", origin=origin)
    assert reply.status == "websocket.close"


def test_another_profile_comes_by_a_ticket_that_works_once(open_):
    profile, before = passes.new_profile(), passes.new_profile()
    cookies = {passes.PROFILE_COOKIE: before}
    address = passes.tickets.issue(profile, before)
    reply = send(open_, address, cookies=cookies)
    assert (reply.status, reply.headers["location"]) == (303, "/settings")
    assert reply.cookies[passes.PROFILE_COOKIE] == profile
    assert not send(open_, address, cookies=cookies).cookies
    assert not send(open_, passes.PROFILE_PATH + "guess", cookies=cookies).cookies


@pytest.mark.parametrize("other", [{}, {passes.PROFILE_COOKIE: passes.new_profile()}])
def test_a_ticket_sent_to_somebody_else_does_not_lead_him_into_a_foreign_profile(open_, other):
    address = passes.tickets.issue(passes.new_profile(), passes.new_profile())
    assert not send(open_, address, cookies=other).cookies


def test_a_ticket_expires():
    tickets = passes.Tickets(seconds=0)
    address = tickets.issue(passes.new_profile(), "me")
    assert tickets.redeem(address.removeprefix(passes.PROFILE_PATH), "me") is None


def test_behind_https_cookies_stay_there(open_):
    messages = []

    async def collect(message):
        messages.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "https",
        "path": "/",
        "query_string": b"",
        "headers": [(b"accept", b"text/html"), (b"host", b"box")],
        "server": ("box", 443),
    }
    asyncio.run(open_(scope, None, collect))
    assert all(words.endswith("; Secure") for words in Reply(messages).cookie_words)
