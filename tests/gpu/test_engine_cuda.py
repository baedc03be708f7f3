"""The engine on a CUDA device gives the CPU's results; skipped where there is none."""

from __future__ import annotations

import pytest
import torch

from fakes import tiny_engine, write_checkpoint
from glm_rag.engine.engine import Engine
from glm_rag.types import SamplingParams

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

IDS = [(7 * i) % 250 for i in range(700)]
GREEDY = SamplingParams(max_tokens=20, temperature=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.08), ("float16", 0.02)]
)
def test_logits_are_close_to_those_of_the_cpu(folder, dtype, tolerance):
    expected = tiny_engine().logits(IDS)
    actual = Engine.load(folder, device="cuda", dtype=dtype).logits(IDS).cpu()
    assert (actual - expected).norm() / expected.norm() < tolerance


def test_greedy_text_is_that_of_the_cpu(folder):
    engine = Engine.load(folder, device="cuda:0", dtype="float32")
    ids = [i for d in engine.generate(IDS, GREEDY) for i in d.token_ids]
    assert ids == [i for d in tiny_engine().generate(IDS, GREEDY) for i in d.token_ids]


def test_auto_takes_the_cuda_device_in_16_bit(folder):
    engine = Engine.load(folder)
    assert engine.device.type == "cuda"
    assert engine.dtype in (torch.bfloat16, torch.float16)


def test_closing_the_stream_frees_device_memory(folder):
    engine = Engine.load(folder, device="cuda")
    before = torch.cuda.memory_allocated()
    stream = engine.generate(IDS, GREEDY)
    next(stream)
    assert torch.cuda.memory_allocated() > before
    stream.close()
    assert torch.cuda.memory_allocated() <= before
