"""`/v1/chat/completions`: OpenAI's form around our answers."""

from __future__ import annotations

import json

import pytest
from server_fakes import FakeModels, app_with, client_of, events, post

import ui_fakes
from fakes import ScriptedEngine
from glm_rag.errors import ContextWindowError, KnowledgeBaseError
from glm_rag.settings import Settings
from glm_rag_server.openai_responses import ChatCompletion

HELLO = [{"role": "user", "content": "Hello?"}]


def chat(messages=HELLO, model="smollm2-135m", **fields):
    return {"model": model, "messages": messages, **fields}


async def test_an_answer_has_openais_form(client):
    reply = await post(client, chat())
    body = ChatCompletion.model_validate_json(reply.text)
    assert reply.status_code == 200
    assert body.choices[0].message.content == "Hello there."
    assert body.choices[0].finish_reason == "stop"
    assert body.usage.completion_tokens == 12  # the fake's tokens are bytes
    assert body.usage.total_tokens == body.usage.prompt_tokens + 12
    assert "glm_rag" not in reply.json()


async def test_a_stream_gives_the_same_text_in_pieces(client):
    chunks = await events(client, chat())
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == "Hello there."
    assert len(deltas) > 5
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-2:] == [None, "stop"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all("usage" not in chunk for chunk in chunks)


async def test_a_stream_ends_with_the_token_counts_where_it_is_asked_to(client):
    chunks = await events(client, chat(stream_options={"include_usage": True}))
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 12
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


async def test_what_is_asked_of_the_sampling_reaches_the_model(client, models):
    await post(
        client,
        chat(temperature=0.5, top_p=0.7, top_k=3, seed=-1, max_completion_tokens=5, max_tokens=9,
             stop=["zz", "e"], repetition_penalty=1.1),
    )  # fmt: skip
    params = models.engine.params[0]
    assert (params.temperature, params.top_p, params.top_k) == (0.5, 0.7, 3)
    assert (params.seed, params.max_tokens, params.repetition_penalty) == (2**63 - 1, 5, 1.1)
    assert params.stop == ("zz", "e")


async def test_a_stop_string_and_the_limit_end_an_answer_as_openai_says(client):
    stopped = (await post(client, chat(stop=" there"))).json()["choices"][0]
    assert (stopped["message"]["content"], stopped["finish_reason"]) == ("Hello", "stop")
    limited = (await post(client, chat(max_tokens=3))).json()["choices"][0]
    assert (limited["message"]["content"], limited["finish_reason"]) == ("Hel", "length")


async def test_a_conversation_reaches_the_model_in_order(client, models):
    parts = [{"type": "text", "text": "And "}, {"type": "text", "text": "then?"}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "First?"},
        {"role": "assistant", "content": "One.", "refusal": None},
        {"role": "user", "content": parts, "name": "ana"},
    ]
    assert (await post(client, chat(messages))).status_code == 200
    prompt = models.engine.prompt_texts[0]
    places = [prompt.index(text) for text in ("Be brief.", "First?", "One.", "And then?")]
    assert places == sorted(places)


@pytest.mark.parametrize("role", ["system", "developer"])
async def test_instructions_reach_the_head_of_the_prompt_wherever_they_stand(client, models, role):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "First?"},
        {"role": role, "content": "Be kind."},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": "And then?"},
        {"role": role, "content": "Be true."},
    ]
    assert (await post(client, chat(messages))).status_code == 200
    in_front = [
        {"role": "system", "content": "Be brief.\n\nBe kind.\n\nBe true."},
        *(messages[at] for at in (1, 3, 4)),
    ]
    assert (await post(client, chat(in_front))).status_code == 200
    assert models.engine.prompt_texts[0] == models.engine.prompt_texts[1]
    documents = await post(client, chat(messages, model="kb:handbook"))
    assert documents.json()["glm_rag"]["notes"]


async def test_fields_that_change_nothing_are_taken(client):
    harmless = {
        "user": "u", "metadata": {"a": "b"}, "store": False, "n": 1, "tools": [], "logprobs": False,
        "response_format": {"type": "text"}, "presence_penalty": 0, "parallel_tool_calls": True,
        "service_tier": "auto", "temperature": None, "stop": None, "reasoning_effort": "low",
    }  # fmt: skip
    assert (await post(client, chat(**harmless))).status_code == 200
    tool = {"type": "function", "function": {"name": "f"}}
    uncalled = {"tools": [tool], "tool_choice": "none", "functions": [{}], "function_call": "none"}
    assert (await post(client, chat(**uncalled))).status_code == 200
    refused = await post(client, chat(tools=[tool], function_call="none"))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tools")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"n": 2}, "n"),
        ({"n": 2, "": "none"}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop.1"),
        ({"stop": {"a": 1}}, "stop"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "messages.0.content.0.type"),
        ({"messages": None}, "messages"),
        ({"stream_options": 5}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages.0.content.0",
        ),
        ({"messages": [{"role": "assistant", "tool_calls": [1]}]}, "messages.0.tool_calls"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(client, fields, param):
    reply = await post(client, {**chat(), **fields})
    error = reply.json()["error"]
    assert reply.status_code == 400
    assert error["param"] == param
    assert "[" not in error["message"]  # pydantic's names of what it tried
    assert error["type"] == "invalid_request_error"
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "assistant", "content": "Hi."}],
        [{"role": "system", "content": "b"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    ],
)
async def test_a_conversation_that_the_model_cannot_read_is_refused(client, messages):
    for stream in (False, True):
        reply = await post(client, chat(messages, stream=stream))
        assert reply.status_code == 400


async def test_an_unknown_model_is_not_found_and_the_known_one_is_named(client):
    reply = await post(client, chat(model="gpt-4o"))
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (404, "model_not_found")
    assert "smollm2-135m" in error["message"]


async def test_a_prompt_that_is_too_long_is_openais_context_error(home):
    settings = Settings(home=home)
    app = app_with(home, FakeModels(settings, ScriptedEngine(["x"], context_window=20)))
    async with client_of(app) as client:
        for stream in (False, True):
            reply = await post(client, chat(stream=stream))
            assert reply.status_code == 400
            assert reply.json()["error"]["code"] == "context_length_exceeded"


async def test_an_answer_from_documents_carries_what_supports_it(client):
    reply = await post(client, chat(model="kb:handbook"))
    body = ChatCompletion.model_validate_json(reply.text)
    assert body.model == "kb:handbook"
    assert body.choices[0].message.content == ui_fakes.REPLY
    assert body.glm_rag is not None
    first = body.glm_rag.citations[0]
    assert (first.quote, first.index, first.page) == (ui_fakes.QUOTE, 1, 3)
    assert [passage.index for passage in body.glm_rag.passages] == [1, 2]
    assert not body.glm_rag.abstained
    assert body.glm_rag.window["size"] == 2048


async def test_a_streamed_answer_carries_citations_as_they_come_and_all_at_the_end(client):
    chunks = await events(client, chat(model="kb:handbook"))
    early = [chunk["glm_rag"] for chunk in chunks[:-1] if "glm_rag" in chunk]
    last = chunks[-1]
    assert [len(marks["citations"]) for marks in early] == [2]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["glm_rag"]["citations"] == early[0]["citations"]
    assert last["glm_rag"]["knowledge_base"] == "handbook"


async def test_an_abstention_says_why_and_what_was_nearest(client, models):
    models.assistants["handbook"].result = ui_fakes.abstention()
    extension = (await post(client, chat(model="kb:handbook"))).json()["glm_rag"]
    assert extension["abstained"]
    assert extension["reason"].startswith("the best passage is too weak")
    assert extension["nearest"][0]["title"] == "Staff handbook"
    assert extension["citations"] == []


async def test_a_knowledge_base_may_be_a_field_beside_the_model(client):
    body = (await post(client, chat(knowledge_base="handbook"))).json()
    assert (body["model"], body["glm_rag"]["knowledge_base"]) == ("smollm2-135m", "handbook")
    both = await post(client, chat(model="kb:handbook", knowledge_base="other"))
    assert both.status_code == 400


async def test_earlier_messages_are_the_history_of_a_question(client, models):
    messages = [
        {"role": "system", "content": "Be a pirate."},
        {"role": "user", "content": "First?"},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": "And then?"},
    ]
    reply = await post(client, chat(messages, model="kb:handbook"))
    question, history = models.assistants["handbook"].asked[0]
    assert question == "And then?"
    assert history == [("user", "First?"), ("assistant", "One.")]
    assert "system messages are not used" in reply.json()["glm_rag"]["notes"][0]


async def test_a_follow_up_goes_on_from_the_remembered_answer(client, models):
    fake = models.assistants["handbook"]
    for stream in (False, True):
        await post(client, chat(model="kb:handbook", stream=stream))
        messages = [
            *HELLO,
            {"role": "assistant", "content": ui_fakes.REPLY + "\n"},
            {"role": "user", "content": "And then?"},
        ]
        await post(client, chat(messages, model="kb:handbook"))
        assert fake.asked[-1] == ("And then?", fake.result)
    messages[1]["content"] = "Something else."
    await post(client, chat(messages, model="kb:handbook"))
    assert fake.asked[-1][1] == [("user", "Hello?"), ("assistant", "Something else.")]


async def test_an_answer_is_remembered_for_its_owner_alone(home):
    app = app_with(home)
    fake = app.state.context.models.assistants["handbook"]
    keys = [app.state.context.keys.create(name, "read") for name in ("ana", "bob")]
    follow_up = [
        *HELLO,
        {"role": "assistant", "content": ui_fakes.REPLY},
        {"role": "user", "content": "And then?"},
    ]
    histories = []
    async with client_of(app) as client:
        client.headers["authorization"] = f"Bearer {keys[0]}"
        await post(client, chat(model="kb:handbook"))
        for key in keys:
            client.headers["authorization"] = f"Bearer {key}"
            await post(client, chat(follow_up, model="kb:handbook"))
            histories.append(fake.asked[-1][1])
    assert histories[0] is fake.result
    assert histories[1] == [("user", "Hello?"), ("assistant", ui_fakes.REPLY)]


def test_only_the_last_used_answers_are_remembered():
    from glm_rag_server.memory import Memory

    memory, answers = Memory(2), [ui_fakes.answer(str(number)) for number in range(3)]
    for number, answer in enumerate(answers):
        memory.keep(("a", "kb"), [("user", str(number))], answer)
        memory.find(("a", "kb"), [("user", "0")])
    found = [memory.find(("a", "kb"), [("user", str(number))]) for number in range(3)]
    assert found == [answers[0], None, answers[2]]


@pytest.mark.parametrize("name", ["nope", "../handbook", "a/b", "", ".", "\0", "x" * 300, "%2e"])
async def test_a_knowledge_base_that_is_not_there_is_not_found(client, name):
    reply = await post(client, chat(model=f"kb:{name}"))
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "knowledge_base_not_found"


@pytest.mark.parametrize("name", ["nope", "../handbook", "/etc", "..", "a\0b", "x" * 300])
async def test_path_tricks_in_real_names_find_nothing(settings, name):
    from glm_rag_server.app import create_app

    async with client_of(create_app(settings)) as client:
        reply = await post(client, chat(model=f"kb:{name}"))
    assert reply.status_code == 404


async def test_an_error_in_the_middle_of_a_stream_is_its_last_event(client, models):
    models.assistants["handbook"].error = KnowledgeBaseError("the index is\ngone")
    reply = await post(client, chat(model="kb:handbook", stream=True))
    assert reply.status_code == 200
    last = json.loads(reply.text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["message"] == "the index is gone"
    assert "[DONE]" not in reply.text


async def test_an_error_before_the_first_piece_is_a_status(client, models):
    fake = models.assistants["handbook"]
    fake.error, fake.error_after = ContextWindowError("too long"), 0
    reply = await post(client, chat(model="kb:handbook", stream=True))
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "context_length_exceeded")


async def test_the_data_folder_stands_in_no_message(client, models, home):
    fake = models.assistants["handbook"]
    fake.error, fake.error_after = KnowledgeBaseError(f"cannot read {home}/kb/handbook"), 0
    error = (await post(client, chat(model="kb:handbook"))).json()["error"]
    assert error["message"] == "cannot read (data folder)/kb/handbook"
