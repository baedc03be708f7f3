"""A model whose guesses hold, guesses that do not, and a count of its passes."""

from __future__ import annotations

import torch

from glm_rag.engine.engine import Engine
from glm_rag.engine.prompt_lookup import PromptLookup
from glm_rag.types import SamplingParams
from tiny_checkpoints import TINY, build_model, byte_tokenizer, random_weights

GREEDY = SamplingParams(max_tokens=60, temperature=0, loop_guard=False)
PROMPT = list(b"the cat sat on the mat, and the dog sat on the cat; the cat sat on")


def copying_engine(noise: float = 0.3) -> Engine:
    """The head prefers the next byte of an alphabet of 24, with a random model's opinion added."""
    weights = random_weights(TINY, seed=3)
    embedding = weights["transformer.embedding.word_embeddings.weight"]
    head = "transformer.output_layer.weight"
    order = torch.arange(len(embedding))
    order[:24] = (order[:24] - 1) % 24
    weights[head] = embedding[order] + noise * weights[head] * embedding.shape[1] ** 0.5
    return Engine(TINY, build_model(TINY, weights), byte_tokenizer())


class CountedPasses:
    """Rows of every pass through the network."""

    def __init__(self, engine: Engine) -> None:
        self.rows: list[int] = []
        self._hook = engine.model.encoder.layers[0].register_forward_hook(
            lambda module, args, output: self.rows.append(output.shape[1])
        )

    def __enter__(self):
        return self.rows

    def __exit__(self, *exc):
        self._hook.remove()


def ids_of(deltas) -> list[int]:
    return [i for delta in deltas for i in delta.token_ids]


def guess_anything(monkeypatch, seed: int) -> None:
    """Drafts of random length out of a few ids, so that every border is met."""
    source = torch.Generator().manual_seed(seed)

    def draft(self, most, others=0):
        length = min(int(torch.randint(0, 6, (), generator=source)), most)
        self.drafted += length
        return torch.randint(0, 24, (length,), generator=source).tolist()

    monkeypatch.setattr(PromptLookup, "draft", draft)
