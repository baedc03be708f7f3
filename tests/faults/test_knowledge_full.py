"""A full disk or a limit on file sizes: one clear line, nothing lost, the next run completes."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("faiss")
import knowledge_writer as writer

WRITE_UNTIL_FULL = """
    import json, resource, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    import knowledge_writer as writer
    from glm_rag.errors import KnowledgeBaseError

    home, limit = Path({home!r}), {limit}
    stored = []
    with writer.open_kb(home, create=True) as kb:
        kb.put_document(*writer.version(0, "doc0"))
        stored.append("doc0")
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            for number in range(1, 500):
                kb.put_document(*writer.version(number, f"doc{{number}}"))
                stored.append(f"doc{{number}}")
        except KnowledgeBaseError as error:
            print(json.dumps([stored, str(error)]))
            # Reading goes on.
            assert len(kb.documents()) == len(stored)
            assert len(kb.similarity_search("x", k=40)) == 40
            for act in (
                lambda: kb.keep_vectors(["x"] * 3000, [[1.0, float(i)] for i in range(3000)]),
                lambda: kb.rebuild(),
            ):
                try:
                    act()
                except KnowledgeBaseError:
                    pass
"""


def write_until_full(home, limit):
    code = textwrap.dedent(WRITE_UNTIL_FULL).format(
        tests=str(Path(__file__).parent), home=str(home), limit=limit
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stored, error = json.loads(done.stdout)
    return stored, error


def check_and_complete(home, stored, error):
    assert len(stored) > 1
    assert "\n" not in error
    assert "nothing is lost" in error
    with writer.open_kb(home) as kb:
        assert {info.source for info in kb.documents()} == set(stored)
        assert kb.verify().findings == ()
        for number in range(len(stored) + 5):
            kb.put_document(*writer.version(number, f"doc{number}"))
        assert len(kb.documents()) == len(stored) + 5
        assert kb.verify().findings == ()


@pytest.mark.parametrize("limit", [300_000, 1_000_000])
def test_a_limit_on_file_sizes_gives_one_line_and_loses_nothing(home, limit):
    stored, error = write_until_full(home, limit)
    assert "ulimit -f" in error
    check_and_complete(home, stored, error)


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"mounting a small disk is not permitted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_gives_one_line_and_loses_nothing(small_disk):
    stored, error = write_until_full(small_disk, 0)
    assert "is full: free some space" in error
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    check_and_complete(small_disk, stored, error)
