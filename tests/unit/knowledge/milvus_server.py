"""A milvus-lite server of the tests' own, and an empty database in it for each test."""

import itertools
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("milvus_process.py")
_numbers = itertools.count()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start_server(folder, port=0):
    """A process that serves `folder` and ends with this one, and its port."""
    log = folder.parent / "milvus.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, PROGRAM, folder, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    line = process.stdout.readline()  # nothing, if it has ended
    if not line:
        stop_server(process)
        raise RuntimeError(log.read_text()[-500:])
    return process, int(line)


def stop_server(process):
    """As a kill does: it writes nothing any more."""
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory):
    """The URI of a server that lives as long as the session."""
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    process, port = start_server(tmp_path_factory.mktemp("milvus") / "data")
    yield f"http://127.0.0.1:{port}"
    stop_server(process)


@pytest.fixture
def milvus_location(milvus_server):
    """An empty database of that server."""
    from pymilvus import MilvusClient

    from glm_rag.knowledge.milvus.client import CHANNEL_OPTIONS
    from glm_rag.knowledge.milvus.naming import Location

    database = f"test{next(_numbers)}"
    client = MilvusClient(milvus_server, grpc_options=CHANNEL_OPTIONS)
    client.create_database(database)
    client.close()
    return Location(milvus_server, database=database)
