"""The ingestion benchmark's own logic: whose memory is counted, which files are edited."""

from __future__ import annotations

import os
import sys

import ingest_throughput
import pytest
from support.process_tree import run_tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PARENT = """
import subprocess, sys
child = "import time; held = bytearray(80 << 20); time.sleep(1.5)"
subprocess.run([sys.executable, "-c", child], check=True)
print("done")
"""


def test_memory_of_children_is_counted_with_their_parents():
    done = run_tree([sys.executable, "-c", PARENT], os.environ)
    assert done.stdout == "done\n"
    assert done.peak_rss >= done.peak_pss > 80 << 20


def test_a_program_that_fails_says_why():
    with pytest.raises(RuntimeError, match="no luck"):
        run_tree([sys.executable, "-c", "raise SystemExit('no luck')"], os.environ)


def test_edits_are_spread_over_all_folders(tmp_path):
    folders = [tmp_path / name for name in "abcd"]
    for folder in folders:
        folder.mkdir()
        for number in range(10):
            (folder / f"{number}.txt").write_text("x")
    assert ingest_throughput.edit(folders) == 10
    edited = [p for folder in folders for p in folder.iterdir() if p.stat().st_size > 1]
    assert len(edited) == 10
    assert {path.parent for path in edited} == set(folders)
