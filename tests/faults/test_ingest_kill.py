"""kill -9 at random moments: nothing that was reported is lost, and the end is always the same."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("faiss")
import ingest_driver as driver

from glm_rag_ingest.pipeline import ingest


def write_corpus(folder, num_files, num_sentences):
    """Small files, two long ones, a pair with the same bytes."""
    folder.mkdir()
    for number in range(num_files):
        (folder / f"{number:03}.txt").write_text(f"This is document number {number}.")
    for name in ("long-a", "long-b"):
        sentences = (f"Sentence {i} of {name} says something. " * 8 for i in range(num_sentences))
        (folder / f"{name}.txt").write_text("\n\n".join(sentences))
    (folder / "twin.txt").write_text((folder / "000.txt").read_text())


class Run:
    """The driver in a process group of its own."""

    def __init__(self, home, docs, seconds_per_text, *options):
        command = [sys.executable, driver.__file__, str(home), str(docs), str(seconds_per_text)]
        self.process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, start_new_session=True
        )
        self.committed = set()
        self.is_done = False
        self._rest = b""

    def read(self, seconds):
        """Take its lines for so long, or until it ends."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([self.process.stdout], [], [], left)
            data = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            self._take(data)
            if ready and not data:
                return

    def wait_for_start(self):
        line = self.process.stdout.readline()
        assert line == b"started\n", line

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self._take(self.process.stdout.read())
        self.process.stdout.close()
        self.process.wait()

    def _take(self, data):
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line == b"done":
                self.is_done = True
            elif line.startswith(b"["):
                action, source = json.loads(line)
                (self.committed.discard if action == "removed" else self.committed.add)(source)


def check_whole(kb):
    assert kb._database.value("PRAGMA integrity_check") == "ok"
    assert not kb.verify().findings


def readers_of(pid):
    """Reading processes that a run has started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            is_reader = b"glm_rag_ingest.worker" in command and command[-2] == str(pid).encode()
            if is_reader and state != "Z":
                found.append(int(entry.name))
    return found


def kill_and_resume(home, docs, *, kills, seconds_per_text, longest, edit):
    chance = random.Random(kills)
    committed = set()
    num_kills = 0
    while num_kills < kills:
        run = Run(home, docs, seconds_per_text)
        run.wait_for_start()
        run.read(chance.uniform(0, longest))
        run.kill()
        committed |= run.committed
        if sys.platform == "linux":
            assert wait_until(lambda pid=run.process.pid: not readers_of(pid))
        num_kills += 1
        if num_kills % 10 == 0 or run.is_done:
            edit(num_kills)
        with driver.open_kb(home) as kb:
            assert kb.verify().findings == ()
            assert committed <= set(kb.known_sources())
    return num_kills


def wait_until(holds, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def check_kills(home, tmp_path, *, files, sentences, kills, seconds_per_text, longest):
    docs = tmp_path / "docs"
    write_corpus(docs, files, sentences)

    def edit(number):
        for i in range(0, files, 7):
            (docs / f"{i:03}.txt").write_text(f"Document {i} was changed in round {number}.")
        with (docs / "long-a.txt").open("a") as file:
            file.write(f"\n\nAdded in round {number}. " * 30)

    kill_and_resume(
        home, docs, kills=kills, seconds_per_text=seconds_per_text, longest=longest, edit=edit
    )
    with driver.open_kb(home) as kb, driver.open_kb(tmp_path / "undisturbed") as whole:
        ingest(docs, kb)
        check_whole(kb)
        ingest(docs, whole)
        assert driver.contents(kb) == driver.contents(whole)
        assert kb.known_sources().keys() == whole.known_sources().keys()
        assert len(kb.known_sources()) == files + 3
        assert ingest(docs, kb).num_skipped == files + 3
        pending = kb._database.value("SELECT count(*) FROM pending_vectors")
        assert pending == 0, "vectors of finished files are left over"


def test_five_kills_lose_nothing_and_end_like_an_undisturbed_run(home, tmp_path):
    check_kills(home, tmp_path, files=40, sentences=60, kills=5, seconds_per_text=0.02, longest=1.2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fifty_kills_lose_nothing_and_end_like_an_undisturbed_run(home, tmp_path):
    check_kills(
        home, tmp_path, files=300, sentences=300, kills=50, seconds_per_text=0.02, longest=1.5
    )


def test_a_kill_costs_a_long_file_one_batch_at_most(home, tmp_path):
    """The next run embeds what the first one had not finished, and no more than a batch twice."""
    docs = tmp_path / "docs"
    docs.mkdir()
    text = "\n\n".join(f"Sentence {i} says something. " * 8 for i in range(120))
    (docs / "long.txt").write_text(text)
    run = Run(home, docs, 0.02)
    run.wait_for_start()
    count = "SELECT count(*) FROM pending_vectors"
    with driver.open_kb(home) as kb:
        assert wait_until(lambda: kb._database.value(count) >= 3 * driver.BATCH, 30)
        run.kill()
        kept = kb._database.value(count)
        assert kept % driver.BATCH == 0
        assert kb.documents() == []
        report = ingest(docs, kb)
        assert report.num_embedded == report.num_chunks - kept
        assert report.num_added == 1
        assert kb._database.value(count) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_the_batch_and_loses_no_vector(home, tmp_path, number):
    docs = tmp_path / "docs"
    docs.mkdir()
    text = "\n\n".join(f"Sentence {i} says something. " * 8 for i in range(120))
    (docs / "long.txt").write_text(text)
    run = Run(home, docs, 0.02)
    run.wait_for_start()
    count = "SELECT count(*) FROM pending_vectors"
    with driver.open_kb(home) as kb:
        assert wait_until(lambda: kb._database.value(count) >= driver.BATCH, 30)
        os.kill(run.process.pid, number)
        assert run.process.wait(30) != 0
        run.process.stdout.close()
        kept = kb._database.value(count)
        assert kept >= 2 * driver.BATCH  # the batch at hand was not thrown away
        report = ingest(docs, kb)
        assert report.num_embedded == report.num_chunks - kept


@pytest.mark.skipif(sys.platform != "linux", reason="the system cannot do it")
def test_a_reader_in_the_middle_of_a_file_dies_with_its_run(home, tmp_path, monkeypatch):
    evil = Path(__file__).parent / "evil_loader"
    monkeypatch.setenv("PYTHONPATH", f"{evil}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.evil").write_text("spin")
    run = Run(home, docs, 0.0)
    run.wait_for_start()
    assert wait_until(lambda: readers_of(run.process.pid), 30)
    time.sleep(2.0)
    run.kill()
    assert wait_until(lambda: not readers_of(run.process.pid), 5)


def test_a_second_ctrl_c_stops_at_once(home, tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("A text.")
    run = Run(home, docs, 60.0)
    run.wait_for_start()
    time.sleep(1.5)
    os.kill(run.process.pid, signal.SIGINT)
    time.sleep(0.5)
    assert run.process.poll() is None
    os.kill(run.process.pid, signal.SIGINT)
    assert run.process.wait(20) != 0
    run.process.stdout.close()
