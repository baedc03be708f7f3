"""What operators see: health, figures, logs, traces, the page; and the one form of errors."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from server_fakes import app_with, client_of

import ui_fakes
from glm_rag.errors import ContextWindowError, ModelNotFoundError
from glm_rag_server.logs import JsonLines

ROOT = Path(__file__).resolve().parents[3]
CHAT = "/v1/chat/completions"
SECRET = "Where is the zebra buried?"


def question(model="smollm2-135m", text=SECRET, **fields):
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


@pytest.fixture
def lines():
    """What the server writes into its log, as text."""
    found = []
    logger = logging.getLogger("glm_rag_server")

    class Keep(logging.Handler):
        def emit(self, record):
            found.append(JsonLines().format(record))

    handler, before = Keep(), (logger.level, logger.propagate)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(before[0])


async def test_health_says_that_the_server_lives_and_readiness_what_is_missing(client, models):
    assert (await client.get("/healthz")).json() == {"status": "alive"}
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")

    def missing():
        raise ModelNotFoundError("model x is not on this machine")

    models.check_model = missing
    reply = await client.get("/readyz")
    assert reply.status_code == 503
    assert reply.json()["checks"]["model"] == "model x is not on this machine"
    assert reply.json()["checks"]["store"] == "ok"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models"])
async def test_a_balancer_may_ask_for_the_head_alone(client, path):
    assert (await client.head(path)).status_code == 200


async def test_a_server_without_its_model_is_not_ready(settings):
    from glm_rag_server.app import create_app

    async with client_of(create_app(settings)) as client:
        reply = await client.get("/readyz")
        assert reply.status_code == 503
        assert "glm-rag model pull" in reply.json()["checks"]["model"]
        asked = await client.post(CHAT, json=question())
    assert (asked.status_code, asked.json()["error"]["code"]) == (503, "model_unavailable")
    assert int(asked.headers["retry-after"]) >= 1


def value(text, name):
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


async def test_figures_count_what_happened(client, models):
    await client.post(CHAT, json=question())
    await client.post(CHAT, json=question("kb:handbook", stream=True))
    models.assistants["handbook"].result = ui_fakes.abstention()
    await client.post(CHAT, json=question("kb:handbook"))
    await client.post(CHAT, json=question("nope"))
    await client.get("/no/such/place")
    text = (await client.get("/metrics")).text
    route = f'method="POST",route="{CHAT}"'
    expected = {
        f'glm_rag_requests_total{{{route},status="200"}}': 3,
        f'glm_rag_requests_total{{{route},status="404"}}': 1,
        'glm_rag_requests_total{method="GET",route="(none)",status="404"}': 1,
        'glm_rag_answers_total{kind="chat",outcome="answered"}': 1,
        'glm_rag_answers_total{kind="knowledge_base",outcome="answered"}': 1,
        'glm_rag_answers_total{kind="knowledge_base",outcome="abstained"}': 1,
        "glm_rag_abstentions_total": 1,
        "glm_rag_generated_tokens_total": 12 + 24,
        "glm_rag_first_token_seconds_count": 2,
        "glm_rag_waiting_seconds_count": 3,
        "glm_rag_queue_length": 0,
        "glm_rag_running": 0,
    }
    assert {name: value(text, name) for name in expected} == expected


async def test_the_manual_lists_every_figure_and_every_setting(client):
    from glm_rag.settings import ServerSettings

    manual = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
    figures = re.findall(r"^# HELP (\w+)", (await client.get("/metrics")).text, re.MULTILINE)
    assert len(figures) > 10
    listed = set(re.findall(r"`(glm_rag_\w+)`", manual))
    assert {name for name in figures if not name.endswith("_created")} == listed
    settings = set(re.findall(r"^\| `(\w+)` \|", manual, re.MULTILINE))
    assert set(ServerSettings.model_fields) <= settings


async def test_a_request_has_an_id_which_may_be_the_clients(client, lines):
    own = await client.get("/v1/models", headers={"x-request-id": "abc-1.2_3"})
    assert own.headers["x-request-id"] == "abc-1.2_3"
    for odd in ("a b", "x" * 65, 'a"b'):
        reply = await client.get("/v1/models", headers={"x-request-id": odd})
        assert re.fullmatch(r"[0-9a-f]{32}", reply.headers["x-request-id"])
    refused = await client.get("/v1/models", headers={"host": "evil.example"})
    assert re.fullmatch(r"[0-9a-f]{32}", refused.headers["x-request-id"])
    assert json.loads(lines[0])["id"] == "abc-1.2_3"


async def test_each_request_is_one_line_that_holds_no_text(home, lines):
    app = app_with(home)
    key = app.state.context.keys.create("laptop", "read")
    async with client_of(app, authorization=f"Bearer {key}") as client:
        await client.post(CHAT, json=question("kb:handbook"))
        await client.post(CHAT, json=question())
        await client.post(CHAT, json=question(temperature="zebra"))
        await client.get(f"/zebra?q={SECRET}")
        await client.post("/v1/embeddings", json={"model": "words", "input": SECRET})
    assert len(lines) == 5
    text = "\n".join(lines)
    for secret in ("zebra", "16 weeks", "Staff", "Hello there", key, key[-20:]):
        assert secret not in text
    first = json.loads(lines[0])
    assert first["route"] == CHAT
    assert (first["status"], first["key"], first["model"]) == (200, "laptop", "kb:handbook")
    assert (first["prompt_tokens"], first["generated_tokens"], first["citations"]) == (412, 24, 2)
    assert first["ms"] >= 0


async def test_text_is_logged_only_where_the_settings_say_so(home, lines):
    async with client_of(app_with(home, log_content=True)) as client:
        await client.post(CHAT, json=question())
    line = json.loads(lines[0])
    assert (line["question"], line["text"]) == (SECRET, "Hello there.")


async def test_a_fault_of_ours_is_a_500_with_an_id_and_a_trace_without_text(client, models, lines):
    models.assistants["handbook"].error = ZeroDivisionError(SECRET)
    models.assistants["handbook"].error_after = 0
    reply = await client.post(CHAT, json=question("kb:handbook"))
    assert reply.status_code == 500
    assert reply.json()["error"]["type"] == "server_error"
    assert "zebra" not in reply.text + "".join(lines)
    fault = json.loads(lines[0])
    assert (fault["error"], fault["id"]) == ("ZeroDivisionError", reply.headers["x-request-id"])
    assert any("ui_fakes.py" in frame for frame in fault["where"])


async def test_a_fault_in_the_middle_of_a_stream_is_told_and_traced(client, models, lines):
    models.assistants["handbook"].error = ZeroDivisionError(SECRET)
    reply = await client.post(CHAT, json=question("kb:handbook", stream=True))
    last = json.loads(reply.text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["type"] == "server_error"
    assert "zebra" not in reply.text.split("data: ")[-1] + "".join(lines)
    assert json.loads(lines[0])["error"] == "ZeroDivisionError"
    assert json.loads(lines[1])["outcome"] == "failed"


async def test_a_body_that_is_missing_is_called_missing(client):
    error = (await client.post(CHAT)).json()["error"]
    assert error["message"].startswith("the body is missing: send")


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("GET", "/nothing", None, 404),
        ("GET", CHAT, None, 405),
        ("DELETE", "/v1/models", None, 405),
        ("POST", CHAT, b"{", 400),
        ("POST", CHAT, b"", 400),
        ("POST", CHAT, b"[]", 400),
        ("POST", CHAT, b"\xff\xfe", 400),
        ("POST", CHAT, b"[" * 100_000, 400),
        ("POST", CHAT, b'{"model": "smollm2-135m", "seed": ' + b"1" * 5000 + b"}", 400),
        ("POST", CHAT, b'{"model": NaN, "messages": Infinity}', 400),
        (
            "POST",
            CHAT,
            rb'{"model": "\ud800", "messages": [{"role": "user", "content": "a"}]}',
            400,
        ),
        (
            "POST",
            CHAT,
            rb'{"model": "smollm2-135m", "messages": [{"role": "user", "content": "\ud800"}]}',
            400,
        ),
        ("POST", "/v1/embeddings", rb'{"model": "words", "input": "\udfff"}', 400),
    ],
)
async def test_every_error_has_the_one_form(client, method, path, content, status):
    headers = {"content-type": "application/json"}
    reply = await client.request(method, path, content=content, headers=headers)
    assert reply.status_code == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert "\n" not in reply.json()["error"]["message"]


async def test_the_page_of_addresses_loads_nothing_from_elsewhere(client):
    page = await client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in ("/docs", "/docs.js", "/docs.css"):
        reply = await client.get(path)
        assert reply.status_code == 200
        assert not re.search(r"(https?:)?//\w+\.", reply.text)


async def test_every_route_says_what_it_takes_and_answers(client):
    spec = (await client.get("/openapi.json")).json()
    for path in (CHAT, "/v1/completions", "/v1/embeddings", "/v1/models", "/readyz", "/metrics"):
        assert path in spec["paths"]
    chat = spec["paths"][CHAT]["post"]
    assert {"200", "400", "401", "429"} <= set(chat["responses"])
    assert "AnswerBody" in spec["components"]["schemas"]
    assert chat["security"]
    responses = [set(one["responses"]) for path in spec["paths"].values() for one in path.values()]
    assert not any("422" in statuses for statuses in responses)


async def test_every_address_says_in_a_persons_words_what_it_does_and_what_may_go_wrong(client):
    spec = (await client.get("/openapi.json")).json()
    groups = {tag["name"]: tag["description"] for tag in spec["tags"]}
    used, summaries = set(), []
    for path, item in spec["paths"].items():
        for method, operation in item.items():
            where = (method, path)
            summaries.append(operation["summary"])
            # FastAPI's own summary is the function's name, which the id begins with.
            words = operation["summary"].lower().replace(" ", "_")
            assert not operation["operationId"].startswith(f"{words}_"), where
            assert operation["description"].strip(), where
            (group,) = operation["tags"]
            used.add(group)
            told = {
                status: reply["description"] for status, reply in operation["responses"].items()
            }
            assert "Successful Response" not in told.values(), where
            assert all(told.values()), where
            if "security" in operation:
                assert {"401", "403"} <= set(told), where
            if "requestBody" in operation:
                assert {"400", "408", "413"} <= set(told), where
            if "{name}" in path:
                assert "404" in told, where
            for status in set(told) - {"503"} if path == "/readyz" else set(told):
                if status >= "400":
                    schema = operation["responses"][status]["content"]["application/json"]["schema"]
                    assert schema["$ref"].endswith("/ErrorBody"), where
    assert used == set(groups)
    assert all(groups.values())
    assert len(set(summaries)) == len(summaries)


async def test_traces_have_a_span_for_each_step(home, settings):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from server_fakes import answering_models

    from glm_rag_server.app import create_app
    from glm_rag_server.telemetry import Tracer

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = create_app(settings, models=answering_models(settings))
    app.state.context.tracer = Tracer(provider)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with client_of(app) as client:
        body = question("kb:handbook", "How long is parental leave?")
        reply = await client.post(CHAT, json=body, headers={"traceparent": parent})
    assert reply.json()["glm_rag"]["citations"]
    spans = {span.name: span for span in exporter.get_finished_spans()}
    steps = {"retrieve", "pack", "prompt", "generate", "cite"}
    assert set(spans) == {"glm_rag.answer", *(f"glm_rag.{step}" for step in steps)}
    whole = spans["glm_rag.answer"]
    assert whole.context.trace_id == int(parent.split("-")[1], 16)
    for step in steps:
        span = spans[f"glm_rag.{step}"]
        assert span.parent.span_id == whole.context.span_id
        assert whole.start_time <= span.start_time <= span.end_time <= whole.end_time
    assert whole.attributes["glm_rag.generated_tokens"] > 0
    assert "parental" not in str([span.attributes for span in spans.values()])


async def test_the_span_of_an_answer_says_how_it_ended_and_of_who_left_no_reason(app):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from starlette.requests import Request

    from glm_rag.types import Usage
    from glm_rag_server.answering import Job
    from glm_rag_server.chat import ChatForm
    from glm_rag_server.pieces import End, Piece
    from glm_rag_server.record import Record
    from glm_rag_server.telemetry import Tracer, traced

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app.state.context.tracer = Tracer(provider)
    request = Request({"type": "http", "headers": [], "state": {"record": Record("1")}})

    def pieces(error=None):
        if error is not None:
            raise error
        yield Piece("Hello")
        # So ends what is broken off by the loop: its reader finds nothing odd in it.
        yield Piece(end=End("stop", Usage(1, 1)))

    def told(read, error=None):
        job = Job("chat", "m", lambda: pieces(error), ChatForm("m"))
        exporter.clear()
        made = traced(app.state.context, request, job)()
        try:
            read(made)
        except type(error):
            pass
        made.close()
        attributes = exporter.get_finished_spans()[-1].attributes
        return attributes["glm_rag.outcome"], attributes.get("glm_rag.finish_reason")

    assert told(list) == ("answered", "stop")
    assert told(lambda made: [next(made), next(made)]) == ("gone", None)
    assert told(list, ZeroDivisionError()) == ("failed", None)
    assert told(list, ContextWindowError("too long")) == ("refused", None)


def test_no_traces_are_made_where_no_place_for_them_is_named(monkeypatch):
    from glm_rag_server.telemetry import Tracer

    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert Tracer.create() is None
    tracer = Tracer.create("http://127.0.0.1:9")
    assert tracer is not None
    tracer.close()
