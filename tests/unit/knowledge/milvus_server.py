"""A milvus-lite server of the tests' own, and an empty database in it for each test."""

import itertools
import socket
import subprocess
import sys
import time

import pytest

_numbers = itertools.count()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start_server(folder, port):
    """A process that serves `folder`, once it answers."""
    program = "from milvus_lite.cmdline import main; main()"
    command = [sys.executable, "-c", program, "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--data-dir", str(folder)]
    with (folder.parent / "milvus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.05)
    stop_server(process)
    raise RuntimeError((folder.parent / "milvus.log").read_text()[-500:])


def stop_server(process):
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory):
    """The URI of a server that lives as long as the session."""
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    port = free_port()
    process = start_server(tmp_path_factory.mktemp("milvus") / "data", port)
    yield f"http://127.0.0.1:{port}"
    stop_server(process)


@pytest.fixture
def milvus_location(milvus_server):
    """An empty database of that server."""
    from pymilvus import MilvusClient

    from glm_rag.knowledge.milvus.naming import Location

    database = f"test{next(_numbers)}"
    client = MilvusClient(milvus_server)
    client.create_database(database)
    client.close()
    return Location(milvus_server, database=database)
