"""A model behind an OpenAI-compatible server does what the engine here does, in the same words."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from glm_rag.breaker import Breaker
from glm_rag.build import build_llm, build_local_llm, build_reranker, llm_name
from glm_rag.config import load_config
from glm_rag.counting import TokenCounter, context_window
from glm_rag.engine.chatglm2_tokenizer import ChatGLM2Tokenizer
from glm_rag.errors import (
    ConfigError,
    ContextWindowError,
    GlmRagError,
    ModelError,
    ModelNotFoundError,
)
from glm_rag.remote_tokens import generous_tokens
from glm_rag.types import ChatTurn
from openai_server import openai_server
from tiny_checkpoints import byte_tokenizer_json

ENDPOINTS = ["chat", "completions"]


def remote(server, endpoint="chat", **changes):
    values = {"backend": "openai", "base_url": server.url, "model": "served", "endpoint": endpoint}
    names = {"max_retries": 0, "timeout": 5.0, **values}
    sampling = {key: changes.pop(key) for key in list(changes) if key.startswith("generation.")}
    given = {f"llm.{name}": value for name, value in {**names, **changes}.items()}
    return build_llm(load_config(overrides={**given, **sampling}))


@pytest.fixture
def served():
    with openai_server() as server:
        yield server


def whole(chunks):
    total = None
    for chunk in chunks:
        total = chunk if total is None else total + chunk
    return total


async def collected(stream):
    return [chunk async for chunk in stream]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_answers_carry_text_usage_and_reason_however_they_are_asked_for(served, endpoint):
    llm = remote(served, endpoint)
    served.finish_reason = "length"
    answers = [
        whole(llm.stream("Hi")),
        whole(asyncio.run(collected(remote(served, endpoint).astream("Hi")))),
        llm.invoke("Hi"),
        asyncio.run(remote(served, endpoint).ainvoke("Hi")),
    ]
    for answer in answers:
        assert answer.text == "Paris is it."
        assert answer.usage_metadata["input_tokens"] == 11
        assert answer.usage_metadata["output_tokens"] == 3
        assert answer.usage_metadata["input_token_details"]["cache_read"] == 8
        assert answer.response_metadata["finish_reason"] == "length"


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_text_comes_piece_by_piece(served, endpoint):
    pieces = [str(chunk.text) for chunk in remote(served, endpoint).stream("Hi")]
    assert [piece for piece in pieces if piece] == ["Paris", " is", " it."]


def held(begun, going_on):
    """Pieces of an answer that stops after the first one until it may go on."""
    yield "Paris"
    begun.set()
    assert going_on.wait(60)
    yield " is it."


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_break_ends_an_answer_that_is_waited_for_and_no_other(served, endpoint):
    llm, breaker = remote(served, endpoint, timeout=60.0), Breaker()
    begun, going_on = [threading.Event() for _ in "ab"], [threading.Event() for _ in "ab"]

    def broken_off():
        with breaker.inside():
            assert whole(llm.stream("Hi")).text == "Paris is it."
            served.pieces = held(begun[0], going_on[0])
            with pytest.raises(ModelError, match="broke off"):
                whole(llm.stream("Hi"))

    with ThreadPoolExecutor(2) as threads:
        broken = threads.submit(broken_off)
        assert begun[0].wait(20)
        served.pieces = held(begun[1], going_on[1])
        other = threads.submit(lambda: whole(llm.stream("Hi")).text)
        assert begun[1].wait(20)
        breaker.break_off()
        broken.result(20)
        for gate in going_on:
            gate.set()
        assert other.result(20) == "Paris is it."


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_whoever_leaves_ends_the_answer_at_the_server(endpoint):
    with openai_server(pieces=["word "] * 2000, pause=0.005) as server:
        stream = remote(server, endpoint).stream("Hi")
        next(stream)
        stream.close()
        assert server.vanished.wait(30)

    async def leave(server):
        stream = remote(server, endpoint).astream("Hi")
        await anext(stream)
        await stream.aclose()

    with openai_server(pieces=["word "] * 2000, pause=0.005) as server:
        asyncio.run(leave(server))
        assert server.vanished.wait(30)


def sent(server):
    return server.requests[-1][1]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_sampling_settings_reach_the_server(served, endpoint):
    settings = {
        "generation.temperature": 0.7,
        "generation.top_p": 0.9,
        "generation.top_k": 20,
        "generation.seed": 3,
        "generation.repetition_penalty": 1.1,
        "generation.max_tokens": 33,
        "generation.stop": ("。",),
    }
    whole(remote(served, endpoint, **settings).stream("Hi"))
    body = sent(served)
    limit = "max_completion_tokens" if endpoint == "chat" else "max_tokens"
    expected = {"temperature": 0.7, "top_p": 0.9, "top_k": 20, "seed": 3, limit: 33}
    expected |= {"repetition_penalty": 1.1, "repeat_penalty": 1.1, "stop": ["。"]}
    assert expected.items() <= body.items()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_call_may_change_any_of_them_and_the_others_stay(served, endpoint):
    llm = remote(served, endpoint, **{"generation.repetition_penalty": 1.1})
    changes = {"temperature": 0.7, "top_k": 20, "seed": 3, "max_tokens": 33, "stop": ["。"]}
    limit = "max_completion_tokens" if endpoint == "chat" else "max_tokens"
    expected = {"temperature": 0.7, "top_k": 20, "seed": 3, limit: 33, "stop": ["。"]}
    for ask in (llm.invoke, lambda text, **given: whole(llm.stream(text, **given))):
        ask("Hi", **changes)
        assert {**expected, "repetition_penalty": 1.1}.items() <= sent(served).items()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_greedy_sends_nothing_that_only_some_servers_know(served, endpoint):
    whole(remote(served, endpoint).stream("Hi"))
    assert not {"top_k", "top_p", "repetition_penalty", "seed", "stop"} & sent(served).keys()


HISTORY = [
    SystemMessage("Be brief."),
    HumanMessage("a"),
    AIMessage("x", additional_kwargs={"token_ids": [5, 6]}),
    HumanMessage("b"),
]
ROUNDS = "[Round 1]\n\n问：Be brief.a\n\n答：x\n\n[Round 2]\n\n问：b\n\n答："


def test_chat_leaves_the_prompt_to_the_server(served):
    whole(remote(served).stream(HISTORY))
    said = [(message["role"], message["content"]) for message in sent(served)["messages"]]
    assert said == [("system", "Be brief."), ("user", "a"), ("assistant", "x"), ("user", "b")]


def test_completions_send_chatglm2s_rounds(served):
    whole(remote(served, "completions").stream(HISTORY))
    assert sent(served)["prompt"] == ROUNDS


def test_completions_with_a_tokenizer_send_the_ids_of_the_engine(served, test_data):
    folder = test_data / "chatglm2"
    whole(remote(served, "completions", tokenizer=folder).stream(HISTORY))
    tokenizer = ChatGLM2Tokenizer.from_file(folder / "tokenizer.model")
    assert sent(served)["prompt"] == tokenizer.encode_prompt(ROUNDS)


def test_only_the_configured_key_is_sent(served, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "private")
    for endpoint in ENDPOINTS:
        whole(remote(served, endpoint).stream("Hi"))
        whole(remote(served, endpoint, api_key="mine").stream("Hi"))
        anonymous, own = (request[2] for request in served.requests[-2:])
        assert "private" not in str(anonymous) + str(own)
        assert own["authorization"] == "Bearer mine"


def test_no_proxy_stands_between_us_and_this_machine(served, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "OPENAI_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for endpoint in ENDPOINTS:
        assert remote(served, endpoint).invoke("Hi").text == "Paris is it."


# ---------------------------------------------------------------- window and counts


@pytest.mark.parametrize(
    "facts",
    [
        {"max_model_len": 2048},
        {"meta": {"n_ctx_train": 2048}},
        {"meta": {"n_ctx_train": 9999, "n_ctx": 2048}},
    ],
)
def test_the_window_is_what_the_server_says(served, facts):
    served.facts = facts
    assert context_window(remote(served)) == 2048


def test_a_setting_of_the_window_comes_first_and_asks_nobody(served):
    served.model = "another"
    assert context_window(remote(served, context_window=1000)) == 1000


def test_a_server_that_tells_no_window_needs_the_setting(served):
    served.facts = {}
    with pytest.raises(ConfigError, match=r"llm\.context_window"):
        context_window(remote(served))


def test_another_model_than_it_has_is_named_with_those_it_has(served):
    with pytest.raises(ModelNotFoundError, match=r"'other'.*served"):
        context_window(remote(served, model="other"))


def test_counts_are_exact_with_the_models_tokenizer(served, test_data):
    folder = test_data / "chatglm2"
    counter = TokenCounter(remote(served, tokenizer=folder))
    tokenizer = ChatGLM2Tokenizer.from_file(folder / "tokenizer.model")
    turns = [ChatTurn("user", "你好, how are you?")]
    assert counter.prompt(turns) == len(tokenizer.encode_chat(turns))
    assert counter.text("你好") == tokenizer.count("你好")


def test_any_tokenizer_json_counts(served, tmp_path):
    plain = json.loads(byte_tokenizer_json())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**plain, "added_tokens": []}))
    counter = TokenCounter(remote(served, tokenizer=tmp_path))
    assert counter.text("abcd") == 4
    assert 4 < counter.prompt([ChatTurn("user", "abcd")]) < 30


def test_a_tokenizer_folder_without_one_is_named(served, tmp_path):
    with pytest.raises(GlmRagError, match=r"llm\.tokenizer"):
        TokenCounter(remote(served, tokenizer=tmp_path)).text("a")


def test_the_estimate_is_above_the_count_for_documents_code_and_tables(test_data):
    own = ChatGLM2Tokenizer.from_file(test_data / "chatglm2" / "tokenizer.model")
    texts = [
        "1,234.56;7,890;12;-3.5\n" * 20,
        "def f(x):\n    return {'a': x ** 2}  # squared\n" * 10,
        "Füße, naïve façade; привет мир; 안녕하세요; 🙂🙃",
        "https://example.org/a?b=c&d=%20e_f-g\n" * 10,
    ]
    for language in ("zh", "en"):
        path = test_data / "xquad" / f"xquad.{language}.json"
        articles = json.loads(path.read_text(encoding="utf-8"))["data"]
        texts += [p["context"] for article in articles for p in article["paragraphs"]]
    for text in texts:
        assert own.count(text) <= generous_tokens(text) <= 4 * own.count(text) + 10


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    ("status", "error", "kind", "words"),
    [
        (401, {"message": "no"}, ConfigError, "GLM_RAG_LLM__API_KEY"),
        (403, {"message": "no"}, ConfigError, "GLM_RAG_LLM__API_KEY"),
        (404, {"message": "no such model"}, ModelNotFoundError, "llm.model"),
        (400, {"code": "context_length_exceeded", "message": "x"}, ContextWindowError, "too long"),
        (400, {"message": "maximum context length is 8"}, ContextWindowError, "too long"),
        (400, {"message": "the request exceeds the available context size"}, GlmRagError, "long"),
        (400, {"message": "top_k is unknown"}, ConfigError, "top_k is unknown"),
        (429, {"message": "slow down"}, ModelError, "too busy"),
        (500, {"message": "boom"}, ModelError, "HTTP 500: boom"),
    ],
)
def test_each_refusal_is_one_line_that_says_what_to_do(endpoint, status, error, kind, words):
    with openai_server(status=status, error=error) as server:
        for call in (
            lambda llm: llm.invoke("Hi"),
            lambda llm: list(llm.stream("Hi")),
            lambda llm: asyncio.run(llm.ainvoke("Hi")),
        ):
            with pytest.raises(kind) as caught:
                call(remote(server, endpoint))
            assert words in str(caught.value)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_nobody_there(endpoint):
    with openai_server() as server:
        llm = remote(server, endpoint)
    with pytest.raises(ModelError, match="no language model answers at http"):
        llm.invoke("Hi")
    with pytest.raises(ModelError, match="no language model answers at http"):
        context_window(llm)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_server_that_keeps_silent_is_given_up(endpoint):
    with openai_server(pause=3.0) as server, pytest.raises(ModelError, match=r"llm\.timeout"):
        list(remote(server, endpoint, timeout=0.3).stream("Hi"))


@pytest.mark.parametrize("break_off", ["ended", "reset"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_answer_that_breaks_off_is_no_answer(endpoint, break_off):
    with openai_server(break_off=break_off) as server:
        llm = remote(server, endpoint)
        with pytest.raises(ModelError, match="broke off"):
            list(llm.stream("Hi"))
        with pytest.raises(ModelError, match="broke off"):
            asyncio.run(collected(remote(server, endpoint).astream("Hi")))


def test_a_page_instead_of_an_answer_is_told():
    with openai_server(page=b"<html>hello</html>") as server:
        for ask in (lambda: context_window(remote(server)), lambda: remote(server).invoke("Hi")):
            with pytest.raises(ModelError, match="not as an OpenAI-compatible server"):
                ask()


def test_a_wrong_key_is_told(served):
    served.key = "right"
    with pytest.raises(ConfigError, match="refuses the API key"):
        remote(served, api_key="wrong").invoke("Hi")
    assert remote(served, api_key="right").invoke("Hi").text == "Paris is it."


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://x/v1", "http://", "http://a:b/v1"])
def test_an_address_that_is_none_is_refused_when_the_model_is_built(url):
    with pytest.raises(ConfigError, match=r"llm\.base_url"):
        build_llm(load_config(overrides={"llm.backend": "openai", "llm.base_url": url}))


def test_an_address_without_a_path_means_v1(served):
    served.url = served.url.removesuffix("/v1")
    assert remote(served).invoke("Hi").text == "Paris is it."
    assert served.requests[-1][0] == "/v1/chat/completions"


def test_what_needs_the_engine_says_so(served):
    overrides = {"llm.backend": "openai", "llm.base_url": served.url, "llm.model": "served"}
    settings = load_config(overrides={**overrides, "retrieval.rerank": "likelihood"})
    with pytest.raises(ConfigError, match=r"llm\.backend"):
        build_reranker(settings).scores("q", [])
    with pytest.raises(ConfigError, match=r"llm\.backend"):
        build_local_llm(settings)


def test_the_name_is_the_servers_or_that_of_the_model():
    assert llm_name(load_config(overrides={"llm.backend": "openai", "model.name": "m"})) == "m"
    both = {"llm.backend": "openai", "model.name": "m", "llm.model": "n"}
    assert llm_name(load_config(overrides=both)) == "n"
    assert llm_name(load_config(overrides={"model.name": "m", "llm.model": "n"})) == "m"


def test_the_key_is_in_no_text_that_the_model_prints(served):
    llm = remote(served, api_key="very-secret")
    assert "very-secret" not in f"{llm!r} {llm} {llm.server.settings!r}"
