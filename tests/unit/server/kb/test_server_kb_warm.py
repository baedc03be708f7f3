"""`POST /kb/{name}/warm`: passages are read ahead while nobody is being answered."""

import time
from dataclasses import replace

import pytest

from glm_rag.models.loading import release_engines
from glm_rag_server.kb.job import Job
from glm_rag_server.kb.jobs import Jobs
from tiny_checkpoints import TINY, write_checkpoint

NOTES = [(f"{n}.md", f"# Note {n}\n\nNumber {n} is a note.".encode()) for n in range(3)]
URL = "/kb/notes/warm"


@pytest.fixture
def filled(client, upload, home):
    """`notes` holds three passages, and the model reads prompts byte by byte."""
    write_checkpoint(home / "models" / "smollm2-135m", replace(TINY, seq_length=4096))
    upload(*NOTES)
    release_engines()
    yield client
    release_engines()


def warm(client, **wanted):
    response = client.post(URL, json=wanted, params={"wait": 30})
    assert response.status_code == 200, response.text
    return response.json()


def files(home):
    return list((home / "cache").rglob("*.safetensors"))


def test_passages_are_read_once_and_stand_on_the_disk(filled, home):
    predicted = warm(filled, dry_run=True)["result"]
    assert (predicted["num_passages"], predicted["num_read"], files(home)) == (3, 0, [])
    job = warm(filled)
    assert (job["state"], job["kind"], job["waits_for"]) == ("done", "warm", "")
    assert (job["result"]["num_read"], job["result"]["num_present"]) == (3, 0)
    assert job["progress"]["done"] == job["progress"]["total"] == 3
    assert len(files(home)) == 3
    assert warm(filled)["result"]["num_present"] == 3
    files(home)[0].unlink()
    assert warm(filled)["result"]["num_read"] == 1


def test_it_waits_while_somebody_is_being_answered_and_may_be_stopped_then(filled, until, home):
    line = filled.app.state.context.line
    ticket = line.enter("a reader")
    job = filled.post(URL, json={}).json()
    at = f"/kb/notes/jobs/{job['id']}"
    until(lambda: "answers are being written" in filled.get(at).json()["waits_for"])
    time.sleep(0.5)
    assert filled.get(at).json()["state"] == "running"
    assert files(home) == []
    filled.delete(at)
    until(lambda: filled.get(at).json()["state"] == "stopped")
    again = filled.post(URL, json={}).json()
    at = f"/kb/notes/jobs/{again['id']}"
    until(lambda: filled.get(at).json()["waits_for"])
    ticket.leave()
    until(lambda: filled.get(at).json()["state"] == "done")
    assert len(files(home)) == 3


def test_what_cannot_be_read_ahead_is_refused_at_once(client, upload, serve, monkeypatch):
    def refused(client, status, words, **wanted):
        response = client.post(URL, json=wanted)
        assert response.status_code == status, response.text
        assert words in response.json()["error"]["message"]

    refused(client, 400, "cache.disk_mb (8192)", budget_mb=8193)
    refused(client, 400, "greater than or equal", budget_mb=0)
    refused(client, 503, "is not on this machine")
    monkeypatch.setattr("glm_rag_server.context.Models.check_model", lambda self: None)
    refused(client, 409, "is empty")
    monkeypatch.setenv("GLM_RAG_CACHE__DISK_MB", "0")
    refused(serve(), 400, "cache.disk_mb")
    monkeypatch.delenv("GLM_RAG_CACHE__DISK_MB")
    monkeypatch.setenv("GLM_RAG_LLM__BACKEND", "openai")
    monkeypatch.setenv("GLM_RAG_LLM__BASE_URL", "http://127.0.0.1:9/v1")
    refused(serve(), 400, "behind another server")


@pytest.mark.parametrize("kinds", [("warm", "warm", "ingest"), ("ingest", "warm", "warm")])
def test_reading_ahead_takes_no_place_from_other_jobs_and_needs_none(until, kinds):
    def waits(job):
        while True:
            job.pause(0.01)

    jobs = Jobs(at_once=1)
    submitted = [jobs.submit(Job(kb, kind, waits)) for kb, kind in zip("abc", kinds, strict=True)]
    until(lambda: sum(job.state == "running" for job in submitted) == 2)
    assert {job.kind for job in submitted if job.state == "running"} == {"warm", "ingest"}
    jobs.close()
