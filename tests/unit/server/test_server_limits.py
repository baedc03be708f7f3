"""Sizes, times and places: what is too much is refused with the right status, and nothing leaks."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time

import httpx
import pytest
from server_fakes import FakeModels, GatedEngine, app_with, client_of, running, serving, until

from glm_rag.settings import Settings

MODEL = "smollm2-135m"
HELLO = {"model": MODEL, "messages": [{"role": "user", "content": "Hello?"}]}
CHAT = "/v1/chat/completions"


@pytest.fixture
def engine():
    """Writes one token of each answer, then waits for its gate."""
    engine = GatedEngine(["Hello there."])
    yield engine
    engine.gate.set()


def gated(home, engine, **server):
    models = FakeModels(Settings(home=home), engine)
    return app_with(home, models, **server)


async def test_a_body_larger_than_the_limit_is_refused(home):
    app = app_with(home, request_kb=2)
    big = json.dumps({**HELLO, "user": "x" * 3000})

    async def unannounced():
        for at in range(0, len(big), 500):
            yield big[at : at + 500].encode()

    async with client_of(app) as client:
        for content in (big, unannounced()):
            reply = await client.post(CHAT, content=content)
            assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
        assert (await client.post(CHAT, json=HELLO)).status_code == 200


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "1" * 30])
async def test_a_content_length_that_is_no_size_is_refused(home, length):
    async with client_of(app_with(home)) as client:
        reply = await client.post(CHAT, content=b"{}", headers={"content-length": length})
    assert reply.status_code in {400, 413}


def raw(address, data, seconds=5.0):
    """Send bytes and read until the server closes."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as sock:
        sock.sendall(data)
        reply = b""
        while part := sock.recv(65536):
            reply += part
    return reply


def test_a_body_that_comes_too_slowly_is_cut_off(home):
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with serving(app_with(home, receive_seconds=0.2)) as address:
        start = time.monotonic()
        reply = raw(address, f"{head}Content-Length: 1000\r\n\r\n{{".encode())
        assert reply.startswith(b"HTTP/1.1 408")
        assert b"too_slow" in reply
        assert time.monotonic() - start < 4
        assert httpx.post(address + CHAT, json=HELLO).status_code == 200


@pytest.mark.parametrize("number", [0, 1, 2], ids=["silence", "the first", "the second"])
def test_a_request_that_does_not_come_to_its_body_in_time_is_cut_off(home, number):
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    with serving(app_with(home, receive_seconds=0.3)) as address:
        where = ("127.0.0.1", int(address.rpartition(":")[2]))
        with socket.create_connection(where, timeout=20) as sock:
            if number == 2:
                sock.sendall(head + b"\r\n")
                assert sock.recv(65536).startswith(b"HTTP/1.1 200")
            start = time.monotonic()
            sock.sendall(head if number else b"")
            while sock.recv(65536):
                pass
            assert time.monotonic() - start < 3  # uvicorn's own clock has 5 s


def test_an_answer_may_take_longer_than_its_request(home, engine):
    with serving(gated(home, engine, receive_seconds=0.2)) as address:
        threading.Timer(0.6, engine.gate.set).start()
        assert ask(address).status_code == 200


def ask(address, **fields):
    return httpx.post(address + CHAT, json={**HELLO, **fields}, timeout=20)


def vanish(address, when, **fields):
    """Ask, and leave as soon as something holds."""
    body = json.dumps({**HELLO, **fields})
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as sock:
        sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        until(when)


def in_threads(count, call):
    threads = [threading.Thread(target=call, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_the_ninth_of_eight_is_refused_with_the_time_to_wait(home, engine):
    app = gated(home, engine, max_running=8, max_waiting=0)
    replies = []
    with serving(app) as address:
        threads = in_threads(8, lambda: replies.append(ask(address)))
        until(lambda: engine.running == 8)
        for stream in (False, True):
            ninth = ask(address, stream=stream)
            assert (ninth.status_code, ninth.json()["error"]["code"]) == (429, "queue_full")
            assert 1 <= int(ninth.headers["retry-after"]) <= 600
        engine.gate.set()
        for thread in threads:
            thread.join(10)
        assert [reply.status_code for reply in replies] == [200] * 8
        assert ask(address).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_vanishes_frees_its_place_within_a_second(home, engine, stream):
    app = gated(home, engine, max_running=1, max_waiting=0)
    line = app.state.context.line
    with serving(app) as address:
        vanish(address, lambda: engine.written == 1, stream=stream)
        time.sleep(0.5)  # for the loop to see that the connection is closed
        # The step in progress ends, as a real engine's does; the answer does not go on.
        start = time.monotonic()
        engine.gate.set()
        until(lambda: line.num_running == 0, 1.0)
        assert time.monotonic() - start < 1
        assert (engine.closed, engine.written) == (1, 2)
        until(lambda: app.state.context.metrics.answers.labels("chat", "gone")._value.get() == 1)
        assert ask(address).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_vanishes_from_the_queue_leaves_it(home, engine, stream):
    app = gated(home, engine, max_running=1, max_waiting=1)
    line = app.state.context.line
    with serving(app) as address:
        first = in_threads(1, lambda: ask(address))
        until(lambda: engine.running == 1)
        vanish(address, lambda: line.num_waiting == 1, stream=stream)
        until(lambda: line.num_waiting == 0, 1.0)
        engine.gate.set()
        first[0].join(10)
        assert len(engine.prompts) == 1


def test_who_waits_with_a_stream_is_told_the_position_in_comments(home, engine):
    app = gated(home, engine, max_running=1, max_waiting=5)
    with serving(app) as address:
        in_threads(2, lambda: ask(address))
        until(lambda: app.state.context.line.num_waiting == 1)
        with httpx.stream("POST", address + CHAT, json={**HELLO, "stream": True}) as reply:
            assert reply.headers["x-queue-ahead"] == "2"
            lines = reply.iter_lines()
            assert next(lines) == ": queued 2 ahead"
            engine.gate.set()
            data = [line for line in lines if line.startswith("data: ")]
        assert data[-1] == "data: [DONE]"


async def test_keys_take_turns(home, engine):
    app = gated(home, engine, max_running=1, max_waiting=20)
    keys = app.state.context.keys
    made = {name: keys.create(name, "read") for name in ("many", "few")}
    done = []

    async def one(name):
        headers = {"authorization": f"Bearer {made[name]}"}
        reply = await client.post(CHAT, json=HELLO, headers=headers)
        assert reply.status_code == 200
        done.append(name)

    async with client_of(app) as client:
        tasks = [asyncio.create_task(one("many")) for _ in range(5)]
        while app.state.context.line.num_waiting < 4:
            await asyncio.sleep(0.01)
        tasks.append(asyncio.create_task(one("few")))
        while app.state.context.line.num_waiting < 5:
            await asyncio.sleep(0.01)
        engine.gate.set()
        await asyncio.gather(*tasks)
    assert done.index("few") <= 2


async def test_who_waits_when_the_server_ends_is_sent_away_and_who_is_served_stays(home, engine):
    app = gated(home, engine, max_running=1, max_waiting=5)
    context = app.state.context
    async with client_of(app) as client:
        served = asyncio.create_task(client.post(CHAT, json=HELLO))
        while engine.running < 1:
            await asyncio.sleep(0.01)
        waits = asyncio.create_task(client.post(CHAT, json=HELLO))
        while context.line.num_waiting < 1:
            await asyncio.sleep(0.01)
        context.stop()
        sent_away = await waits
        assert (sent_away.status_code, sent_away.headers["retry-after"]) == (503, "5")
        assert (await client.post(CHAT, json=HELLO)).status_code == 503
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200
        engine.gate.set()
        assert (await served).json()["choices"][0]["message"]["content"] == "Hello there."


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("insists", [False, True], ids=["time is over", "second Ctrl-C"])
def test_answers_that_the_end_breaks_off_are_gone_and_no_fault(
    home, engine, caplog, insists, stream
):
    caplog.set_level(logging.INFO)
    app = gated(home, engine, shutdown_seconds=60 if insists else 0.2)
    with running(app) as (server, address):
        told = []

        def reads():
            with pytest.raises(httpx.TransportError):
                ask(address, stream=stream)
            told.append("it broke off")

        threads = in_threads(2, reads)
        until(lambda: engine.running == 2)
        server.should_exit = True
        until(lambda: app.state.context.closing.is_set())
        server.force_exit = insists
        for thread in threads:
            thread.join(10)
        gone = app.state.context.metrics.answers.labels("chat", "gone")
        until(lambda: gone._value.get() == 2)
        engine.gate.set()  # the steps in progress end
    assert told == ["it broke off"] * 2
    lines = [record.fields for record in caplog.records if record.getMessage() == "request"]
    assert [line["status"] for line in lines if line["route"] == CHAT] == [499, 499]
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_an_answer_is_broken_off_before_its_first_token(home):
    """What is running is told to end by the loop: its thread waits and would not notice."""
    from concurrent.futures import ThreadPoolExecutor

    from glm_rag.breaker import on_break
    from glm_rag_server.running import Work

    began, end, ended = threading.Event(), threading.Event(), threading.Event()

    def first_token_never_comes():
        on_break(end.set)
        began.set()
        end.wait(20)
        return
        yield

    with ThreadPoolExecutor(1) as threads:
        work = Work(threads, first_token_never_comes, ended.set)
        items = work.items()
        reading = asyncio.create_task(anext(items))
        await asyncio.to_thread(began.wait, 5)
        reading.cancel()
        await asyncio.wait({reading})
        await items.aclose()
        assert await asyncio.to_thread(ended.wait, 5)


def test_as_many_answers_decode_together_as_the_line_has_places(home):
    from glm_rag_server.context import Models

    settings = Settings(home=home, server={"max_running": 3})
    assert Models(settings).llm().max_running == 3
