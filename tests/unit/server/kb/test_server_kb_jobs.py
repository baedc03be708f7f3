"""Jobs: who waits for whom, how far they are, and how they end."""

import json
import threading

import pytest

pytest.importorskip("fastapi")

from glm_rag.errors import KnowledgeBaseBusyError
from glm_rag_server.kb.job import Job
from glm_rag_server.kb.jobs import Jobs

LONG = b"\n\n".join(b"Paragraph %d of the long report. " % n * 40 for n in range(60))


class Scripted:
    """Jobs that wait for a gate and note their order."""

    def __init__(self):
        self.gate = threading.Event()
        self.order = []
        self.now = set()

    def job(self, kb, owner="", kind="ingest", name=""):
        def work(job):
            mine = job.lane
            assert mine not in self.now
            self.now.add(mine)
            self.order.append(name or kb)
            while not self.gate.is_set():
                try:
                    job.pause(0.01)
                finally:
                    if job.is_stopping:
                        self.now.discard(mine)
            self.now.discard(mine)

        return Job(kb, kind, work, owner=owner)


@pytest.fixture
def scripted():
    scripted = Scripted()
    yield scripted
    scripted.gate.set()


def test_owners_take_turns_and_jobs_of_one_base_never_run_together(scripted, until):
    jobs = Jobs(at_once=1)
    named = [jobs.submit(scripted.job("a", "me", name=f"me {n}")) for n in range(4)]
    named += [jobs.submit(scripted.job("a", "you", name=f"you {n}")) for n in range(2)]
    named += [jobs.submit(scripted.job("b", "you", name="b"))]
    until(lambda: scripted.order)
    scripted.gate.set()
    until(lambda: all(job.is_over for job in named))
    assert scripted.order == ["me 0", "b", "you 0", "me 1", "you 1", "me 2", "me 3"]
    assert [job.state for job in named] == ["done"] * 7


def test_a_check_does_not_wait_for_a_writer_but_two_writers_do(scripted, until):
    jobs = Jobs(at_once=4)
    first, second, check = (
        jobs.submit(scripted.job("a", kind=kind)) for kind in ("ingest", "rebuild", "verify")
    )
    until(lambda: len(scripted.order) == 2)
    assert [job.state for job in (first, second, check)] == ["running", "queued", "running"]
    scripted.gate.set()
    until(lambda: second.is_over)


def test_a_waiting_job_is_stopped_at_once_and_a_running_one_soon(scripted, until):
    jobs = Jobs(at_once=1)
    running, waiting = (jobs.submit(scripted.job("a")) for _ in range(2))
    until(lambda: running.state == "running")
    jobs.stop(waiting)
    assert (waiting.state, running.state) == ("stopped", "running")
    jobs.stop(running)
    assert running.wait(5)
    assert (running.state, len(scripted.order)) == ("stopped", 1)


def test_the_newest_jobs_are_remembered_and_those_that_are_not_over(scripted, until):
    scripted.gate.set()
    jobs = Jobs(kept=3)
    for _ in range(6):
        last = jobs.submit(scripted.job("a"))
        assert last.wait(5)
    assert len(jobs.of("a")) == 4  # looked through when one comes
    assert jobs.of("a")[0] is last
    assert jobs.get("b", last.id) is None


def test_a_closed_server_takes_no_jobs_and_ends_those_it_has(scripted, until):
    jobs = Jobs(at_once=1)
    both = [jobs.submit(scripted.job("a")) for _ in range(2)]
    until(lambda: both[0].state == "running")
    jobs.close(5)
    assert [job.state for job in both] == ["stopped", "stopped"]
    with pytest.raises(KnowledgeBaseBusyError):
        jobs.submit(scripted.job("a"))


def test_what_breaks_a_job_is_told_in_one_line_and_the_next_one_runs(scripted, caplog):
    def breaks(job):
        raise RuntimeError("secret text of a document")

    jobs = Jobs(at_once=1)
    broken = jobs.submit(Job("a", "ingest", breaks))
    assert broken.wait(5)
    assert broken.state == "failed"
    assert "secret" not in broken.error
    assert broken.id in caplog.text
    assert "secret" not in caplog.text
    scripted.gate.set()
    assert jobs.submit(scripted.job("a")).wait(5)


# ---------------------------------------------------------------- over HTTP


def state(client, job):
    return client.get(f"/kb/notes/jobs/{job['id']}").json()


def test_a_stopped_ingestion_keeps_what_is_finished_and_goes_on(client, upload, words, until):
    words.gate.clear()
    files = [(f"{n:02}.md", b"# Note %d\n\n" % n + LONG) for n in range(12)]
    job = upload(*files, wait=0)
    assert job["state"] in ("queued", "running")
    until(lambda: (state(client, job)["progress"] or {}).get("total") == 12)
    assert client.delete(f"/kb/notes/jobs/{job['id']}").json()["stopping"]
    words.gate.set()
    until(lambda: state(client, job)["state"] == "stopped")
    result = state(client, job)["result"]
    assert result["interrupted"]
    kept = client.get("/kb/notes").json()["num_documents"]
    assert kept == result["num_added"] < 12
    rest = client.post("/kb/notes/ingest?wait=60", json={}).json()["result"]
    assert (rest["num_added"], rest["num_skipped"]) == (12 - kept, kept)


def test_whoever_reads_sees_new_passages_while_others_are_added(client, upload, words, until):
    upload(("first.md", b"# First\n\nThe red bicycle is in the cellar.\n"))
    words.gate.clear()
    job = upload(("second.md", b"# Second\n\nThe blue canoe is on the roof.\n" + LONG), wait=0)
    until(lambda: state(client, job)["state"] == "running")

    def titles(query):
        found = client.post("/kb/notes/search", json={"query": query}).json()["passages"]
        return {passage["title"] for passage in found}

    assert titles("where is the red bicycle?") == {"First"}
    words.gate.set()
    until(lambda: state(client, job)["state"] == "done")
    assert "Second" in titles("where is the blue canoe?")


def test_events_end_with_what_came_of_the_job(client, upload, words):
    words.gate.clear()
    job = upload(("a.md", LONG), wait=0)
    timer = threading.Timer(0.3, words.gate.set)
    timer.start()
    with client.stream("GET", f"/kb/notes/jobs/{job['id']}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        told = "".join(response.iter_text()).strip().split("\n\n")
    timer.join()
    kinds = [event.partition("\n")[0] for event in told]
    assert kinds[-1] == "event: end"
    assert kinds.count("event: end") == 1
    assert kinds[0] == "event: progress"
    first = json.loads(told[0].partition("data: ")[2])
    assert (first["id"], "files" in first) == (job["id"], False)
    last = json.loads(told[-1].partition("data: ")[2])
    assert (last["state"], last["result"]["num_added"]) == ("done", 1)


def test_a_base_with_a_running_job_can_be_deleted_and_its_jobs_end(
    client, upload, words, until, home
):
    words.gate.clear()
    jobs = [upload((f"{n}.md", LONG), wait=0) for n in range(3)]
    until(lambda: state(client, jobs[0])["state"] == "running")
    threads = client.app.state.kb.jobs.of("notes")
    assert client.patch("/kb/notes", json={"name": "other"}).status_code == 409
    threading.Timer(0.2, words.gate.set).start()
    assert client.delete("/kb/notes").status_code == 200
    assert {job.state for job in threads} == {"stopped"}
    assert client.get(f"/kb/notes/jobs/{jobs[0]['id']}").status_code == 404
    assert not (home / "kb" / "notes").exists()
    assert client.post("/kb", json={"name": "notes"}).status_code == 201
    assert client.get("/kb/notes").json()["num_documents"] == 0


def test_a_job_waits_for_another_writer_and_can_be_stopped_there(client, upload, until):
    from glm_rag.build import open_knowledge_base
    from glm_rag.config import load_config

    with open_knowledge_base(load_config(), "notes") as other, other.writing():
        job = upload(("a.md", LONG), wait=0)
        until(lambda: state(client, job)["waits_for"])
        stopped = upload(("b.md", LONG), wait=0)
        client.delete(f"/kb/notes/jobs/{stopped['id']}")
        assert state(client, stopped)["state"] == "stopped"
        assert client.delete("/kb/notes").status_code == 409
        until(lambda: state(client, job)["state"] == "stopped")  # the deletion has tried
        job = upload(("a.md", LONG), wait=0)
        until(lambda: state(client, job)["waits_for"])
    until(lambda: state(client, job)["state"] == "done")


def test_the_end_of_the_server_ends_its_jobs_with_what_is_finished(serve, words, until):
    words.gate.clear()
    client = serve()
    client.post("/kb", json={"name": "notes"})
    form = [("files", (f"{n}.md", LONG)) for n in range(3)]
    client.post("/kb/notes/documents", files=form)
    (job,) = client.app.state.kb.jobs.of("notes")
    until(lambda: job.progress)
    threading.Timer(0.2, words.gate.set).start()
    client.__exit__(None, None, None)
    assert job.state == "stopped"
