"""What the server asks may hang; who does not want it does not wait for it."""

from __future__ import annotations

import asyncio
import threading

import pytest
from server_fakes import FakeModels, app_with, client_of

from glm_rag.settings import Settings

HI = [{"role": "user", "content": "Hi"}]
CHAT = "/v1/chat/completions"
MANY = 60  # more than any pool of threads has


class HangingModels(FakeModels):
    """Whose store, or whose model's server, takes questions and does not answer."""

    def __init__(self, settings, what):
        super().__init__(settings)
        self.what, self.go_on = what, threading.Event()

    def _ask(self, what):
        if what == self.what:
            self.go_on.wait(30)

    def knowledge_bases(self):
        self._ask("store")
        return super().knowledge_bases()

    def knowledge_base(self, name):
        self._ask("store")
        return super().knowledge_base(name)

    def check_model(self):
        self._ask("model")

    def context_window(self, name):
        self._ask("model")
        return 8192


@pytest.mark.parametrize("what", ["store", "model"])
async def test_what_hangs_keeps_nobody_from_the_rest(home, what):
    models = HangingModels(Settings(home=home), what)
    app = app_with(home, models)
    async with client_of(app) as client:
        asked = {"model": "kb:handbook", "messages": HI}
        waiting = [
            asyncio.ensure_future(request)
            for _ in range(MANY // 3)
            for request in (
                client.get("/v1/models"), client.get("/readyz"), client.post(CHAT, json=asked)
            )
        ]  # fmt: skip
        try:
            await asyncio.sleep(0.2)
            async with asyncio.timeout(5):
                assert (await client.get("/healthz")).status_code == 200
                plain = await client.post(CHAT, json={"model": "smollm2-135m", "messages": HI})
                assert plain.status_code == 200
                if what == "model":
                    assert (await client.get("/kb")).status_code == 200
        finally:
            models.go_on.set()
            await asyncio.gather(*waiting)
        assert {reply.result().status_code for reply in waiting} == {200}


async def test_questions_whose_asker_left_are_not_asked(home):
    models = HangingModels(Settings(home=home), "store")
    app = app_with(home, models)
    calls = []
    outside = app.state.context.outside

    def ask():
        calls.append(1)
        models.go_on.wait(30)

    tasks = [asyncio.ensure_future(outside.ask("store", ask)) for _ in range(MANY)]
    await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    models.go_on.set()
    await outside.ask("store", len, calls)
    assert len(calls) < MANY / 2
