"""A process that forks with a quantized model loaded: both go on, each by itself."""

from __future__ import annotations

import os
import warnings

import pytest
import torch
from test_engine_quantized import BACKENDS, IDS, SHAPE, load
from together import ended_with

from tiny_checkpoints import write_checkpoint


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "torch"])
def test_a_forked_process_computes_with_threads_of_its_own(tmp_path, backend):
    """The child has none of the threads that computed in its parent."""
    prompt = (IDS * 9)[:700]
    engine = load(write_checkpoint(tmp_path / "source", SHAPE), prefer=backend, threads=3)
    expected = engine.logits(prompt)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
        child = os.fork()
    if not child:
        try:
            torch.set_num_threads(1)  # OpenMP's threads are gone, too, and it cannot start others
            os._exit(0 if torch.equal(engine.logits(prompt), expected) else 1)
        finally:
            os._exit(2)
    assert torch.equal(engine.logits(prompt), expected)
    assert ended_with(child) == 0
