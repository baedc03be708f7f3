"""Join a Ray cluster, or start one on this machine, and leave things as they were."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from glm_rag.errors import ConfigError, GlmRagError, MissingDependencyError

_STORE_BYTES = 200 << 20  # of a cluster of our own: texts of a few files are all that it holds
_CONNECT_SECONDS = 5.0
_JOIN = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False); ray.shutdown()"
_JOIN_TRIES = 5  # about a second each
_JOIN_SECONDS = 30.0
# Ray puts sockets 62 characters below its folder, and a socket's path may have 107.
_LONGEST_FOLDER = 24
_START = "start it with `ray start --head` there, or leave --address out to use this machine alone"
_NONE_HERE = "Could not find any running Ray instance"
_START_OR_JOIN = (
    "start it with `ray start --head`, or join one with `ray start --address HOST:PORT`; without "
    "--address this machine is used alone"
)
_HINT = (
    "; it must run, this machine be one of its nodes, and RAY_AUTH_MODE and RAY_AUTH_TOKEN be the "
    "same on all"
)


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """The module `ray`, connected.

    Args:
        address: HOST:PORT of a cluster that this machine belongs to, `auto` for the one that
            runs on it; empty: one of our own on this machine, ended afterwards. A program that
            is connected already stays so, whatever `address` says.

    Raises:
        MissingDependencyError: Ray is not installed.
        ConfigError: no address. GlmRagError: there is no cluster, or it does not let us in.
    """
    ray = _import()
    with _quiet():
        if ray.is_initialized():
            yield ray
            return
        with _own_folder(needed=not address) as folder, _signals_kept(), _silent(ray):
            try:
                if address:
                    _join(ray, address)
                else:
                    _start(ray, folder)
                yield ray
            finally:
                ray.shutdown()


def _import() -> Any:
    # Nothing leaves this machine. Ray reads it when a cluster starts.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError.for_extra("ray", "ray") from error
    return ray


def _start(ray: Any, folder: str) -> None:
    with _loopback(ray):
        _init(
            ray,
            "this machine",
            address="local",
            object_store_memory=_STORE_BYTES,
            include_dashboard=False,
            _temp_dir=folder,
        )


def _join(ray: Any, address: str) -> None:
    if "://" in address:
        raise ConfigError(
            f"cannot use the Ray address {address!r}: run glm-rag on a machine of the cluster and "
            "name HOST:PORT, or auto"
        )
    if address != "auto":
        _reach(address)
    _rehearse(address)
    _init(ray, address, address=address)


def _rehearse(address: str) -> None:
    """Join in another process, where Ray's patience and its notes on stderr do no harm."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _JOIN, address],
            env={**os.environ, "RAY_NUM_REDIS_GET_RETRIES": str(_JOIN_TRIES)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=os.sep,  # see `_init`
            timeout=_JOIN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        reason = f"no answer for {_JOIN_SECONDS:.0f} s"
        raise GlmRagError(f"cannot join the Ray cluster at {address}: {reason}{_HINT}") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        if _NONE_HERE in said[-1]:
            raise GlmRagError(f"no Ray cluster runs on this machine: {_START_OR_JOIN}")
        refused = any("InvalidAuthToken" in line for line in said)
        reason = "the token is missing or wrong" if refused else said[-1][:300]
        raise GlmRagError(f"cannot join the Ray cluster at {address}: {reason}{_HINT}")


def _reach(address: str) -> None:
    """Whether anybody listens there; Ray itself would try for a minute and more."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"no Ray address: {address!r}; name HOST:PORT, as 10.0.0.1:6379, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        reason = (error.strerror or str(error) or type(error).__name__).lower()
        raise GlmRagError(f"no Ray cluster at {address} ({reason}): {_START}") from error


def _init(ray: Any, where: str, **arguments: Any) -> None:
    # Workers would search the working folder for modules, and that may hold the user's documents.
    job = ray.job_config.JobConfig(_client_job=True)
    try:
        ray.init(
            job_config=job,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            **arguments,
        )
    # Ray raises a dozen kinds here, and its own errors have no kind of their own above them.
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        hint = "" if arguments["address"] == "local" else _HINT
        raise GlmRagError(f"cannot use Ray at {where}: {reason}{hint}") from error


# ---------------------------------------------------------------- as it was before


@contextmanager
def _quiet() -> Iterator[None]:
    """No notes of Ray's own: errors of a run are told by the run."""
    logger = logging.getLogger("ray")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _silent(ray: Any) -> Iterator[None]:
    """Ray tells of workers that die on stdout, whatever the level, and there is the report."""
    worker = ray._private.worker
    before = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes over SIGTERM for good."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


@contextmanager
def _own_folder(*, needed: bool) -> Iterator[str]:
    """Where a cluster of our own keeps its sockets and logs; gone afterwards."""
    if not needed:
        yield ""
        return
    base = tempfile.gettempdir()
    base = base if len(base) <= _LONGEST_FOLDER else "/tmp"
    folder = tempfile.mkdtemp(prefix="glm-rag-ray-", dir=base)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _loopback(ray: Any) -> Iterator[None]:
    """Let a cluster of our own listen on 127.0.0.1 alone; by default Ray's listen everywhere.

    Ray does so where it believes that the system cannot have clusters.
    """
    constants = ray._private.ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
