"""Answers that decode together: what each gives alone, and a watch on the passes."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace

from glm_rag.types import SamplingParams
from tiny_checkpoints import tiny_engine

GREEDY = SamplingParams(max_tokens=40, temperature=0, loop_guard=False)
SAMPLED = replace(GREEDY, temperature=1.3, seed=7)
PROMPTS = [list(b"The quick brown fox"), list(b"x"), list(b"jumps over the lazy dog. " * 12)]


def alone(prompt, params, **shape):
    return summary(list(tiny_engine(**shape).generate(prompt, params)))


def summary(deltas):
    ids = [i for delta in deltas for i in delta.token_ids]
    return ids, "".join(d.text for d in deltas), deltas[-1].finish_reason


def wait_until(holds, seconds=30.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


def ended_with(child, seconds=60.0):
    """Exit status of a process; it is killed where it does not end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def reading(stream):
    """The deltas, or what ended them; fails where neither comes."""
    came = []

    def read():
        try:
            came.append(list(stream))
        except Exception as error:  # noqa: BLE001 - handed on
            came.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(30)
    stream.close()  # lets the thread go in any case
    assert came, "the reader waits for ever"
    return came[0]


class Passes:
    """Watches the first layer: what each pass computes, and slows it down."""

    def __init__(self, engine, seconds=0.0):
        self.rows = []
        self.gate = threading.Event()
        self.gate.set()

        def hook(*args):
            self.gate.wait(60)
            time.sleep(seconds)
            self.rows.append(args[2].shape[1])

        engine.model.encoder.layers[0].register_forward_hook(hook)
