"""SmolLM2 in ChatGLM2 form is the same model as the Llama that transformers runs."""

from __future__ import annotations

import inspect
import textwrap

import pytest
import torch
from llama_reference import llama_from_gguf

from glm_rag.engine.engine import Engine
from glm_rag.models.registry import get_spec
from glm_rag.models.wheel import extract_gguf
from glm_rag.types import ChatTurn, SamplingParams

PROMPTS = (
    "What is the capital of France?",
    "List three colours of the rainbow.",
    "Write one sentence about the sea.",
    "How many days are in a week?",
    "Translate 'good morning' into Spanish.",
    "Why do leaves turn red in autumn?",
    "The handbook says: parental leave is 16 weeks. How long is parental leave?",
    "2024 年有多少天？",
)
MAX_TOKENS = 12


@pytest.fixture(scope="module")
def engine(smollm2) -> Engine:
    return Engine.load(smollm2, dtype="float32")


@pytest.fixture(scope="module")
def llama(smollm2_wheel, tmp_path_factory):
    target = tmp_path_factory.mktemp("gguf") / "model.gguf"
    return llama_from_gguf(extract_gguf(smollm2_wheel, get_spec("smollm2-135m"), target))


def test_logits_at_700_tokens_equal_transformers_llama(engine, llama):
    ids = engine.tokenizer.encode(inspect.getsource(textwrap))[:700]
    assert len(ids) == 700
    with torch.inference_mode():
        expected = llama(torch.tensor([ids])).logits[0]
    assert (engine.logits(ids) - expected).abs().max() < 2e-3


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_equals_transformers_llama(engine, llama, prompt):
    ids = engine.tokenizer.encode_chat([ChatTurn("user", prompt)])
    greedy = SamplingParams(temperature=0, max_tokens=MAX_TOKENS)
    text = "".join(delta.text for delta in engine.generate(ids, greedy))
    inputs = torch.tensor([ids])
    reference = llama.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        max_new_tokens=MAX_TOKENS,
        do_sample=False,
        eos_token_id=sorted(engine.tokenizer.eos_token_ids),
    )
    new_ids = reference[0, len(ids) :].tolist()
    assert text == engine.tokenizer.decode(new_ids)
