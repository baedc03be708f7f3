"""`/v1/completions`: raw text and token ids, one choice for each prompt."""

from __future__ import annotations

import pytest
from server_fakes import FakeModels, app_with, client_of, events, post

from fakes import ScriptedEngine, tiny_engine
from glm_rag.settings import Settings
from glm_rag_server.openai_responses import Completion


async def test_raw_text_is_continued_without_a_chat_format(client, models):
    body = {"model": "smollm2-135m", "prompt": ["[gMASK]sop"]}
    reply = await post(client, body, "/v1/completions")
    assert Completion.model_validate_json(reply.text).choices[0].text == "Hello there."
    assert models.engine.prompts[0] == models.engine.tokenizer.encode_prompt("[gMASK]sop")
    chunks = await events(
        client, {**body, "stream_options": {"include_usage": True}}, "/v1/completions"
    )
    assert "".join(c["choices"][0]["text"] for c in chunks[:-1]) == "Hello there."
    assert chunks[-1]["usage"]["completion_tokens"] == 12


@pytest.mark.parametrize("prompts", [["a", "bb", "ccc"], [[1], [2, 3], [4, 5, 6]]])
async def test_each_of_several_prompts_has_a_choice_and_the_counts_are_their_sum(
    client, models, prompts
):
    models.engine.replies = ["One.", "Two and more.", "Last."] * 2
    body = {"model": "smollm2-135m", "prompt": prompts, "max_tokens": 6}
    reply = (await post(client, body, "/v1/completions")).json()
    Completion.model_validate(reply)
    found = [(one["index"], one["text"], one["finish_reason"]) for one in reply["choices"]]
    assert found == [(0, "One.", "stop"), (1, "Two an", "length"), (2, "Last.", "stop")]
    counts = [sum(map(len, models.engine.prompts)), 4 + 6 + 5]  # the fake's tokens are bytes
    assert [reply["usage"]["prompt_tokens"], reply["usage"]["completion_tokens"]] == counts

    wanted = {**body, "stream_options": {"include_usage": True}}
    *chunks, last = await events(client, wanted, "/v1/completions")
    texts, reasons = {}, {}
    for (choice,) in (chunk["choices"] for chunk in chunks):
        assert choice["index"] not in reasons
        texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
        if choice["finish_reason"]:
            reasons[choice["index"]] = choice["finish_reason"]
    assert [(index, texts[index], reasons[index]) for index in texts] == found
    assert last["usage"] == reply["usage"]


async def test_one_prompt_that_is_too_long_refuses_all_before_any_is_answered(home):
    engine = ScriptedEngine(["x"], context_window=20)
    async with client_of(app_with(home, FakeModels(Settings(home=home), engine))) as client:
        for stream in (False, True):
            body = {"model": "smollm2-135m", "prompt": ["a", "b" * 30], "stream": stream}
            reply = await post(client, body, "/v1/completions")
            assert reply.status_code == 400
            error = reply.json()["error"]
            assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt.1")
    assert engine.prompts == []


@pytest.mark.parametrize("nested", [False, True])
async def test_token_ids_are_continued_as_they_are_special_ones_too(client, models, nested):
    ids = [*models.engine.tokenizer.eos_token_ids, 1, 2]
    body = {"model": "smollm2-135m", "prompt": [ids] if nested else ids}
    reply = await post(client, body, "/v1/completions")
    assert reply.json()["choices"][0]["text"] == "Hello there."
    assert reply.json()["usage"]["prompt_tokens"] == len(ids)
    assert models.engine.prompts == [ids]


@pytest.mark.parametrize("ids", [[1, 10**6], [-1], [10**30], [[]]])
async def test_ids_that_the_model_does_not_have_are_refused(client, models, ids):
    models.engine = tiny_engine()
    for stream in (False, True):
        body = {"model": "smollm2-135m", "prompt": ids, "stream": stream}
        assert (await post(client, body, "/v1/completions")).status_code == 400


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": ["a", [1]]}, "prompt.1"),
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": 1}, "logprobs"),
    ],
)
async def test_raw_text_refuses_what_it_cannot(client, fields, param):
    body = {"model": "smollm2-135m", "prompt": "a", **fields}
    reply = await post(client, body, "/v1/completions")
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
