"""A name for everything that makes a kept KV cache right or wrong for a model."""

from __future__ import annotations

import hashlib
from itertools import chain

import torch
from torch import Tensor

from glm_rag.engine.model import ChatGLM2Model

# Values read at the start, middle and end of each tensor: reading all of a 6B model would take
# longer than what a kept cache saves.
_SAMPLE = 256
# Raise it when the arithmetic changes in a way that kept caches must not survive.
_VERSION = 1


@torch.inference_mode()
def fingerprint(model: ChatGLM2Model) -> str:
    """Hex digest of a model as it computes: weights, their types, rotary table, prefix, KV type.

    Every tensor goes in by name, shape, type and a sample of its bytes, so another fine-tune,
    quantization, rotary rule or P-tuning prefix gives another name, wherever the files lie.
    """
    digest = hashlib.sha256(f"{_VERSION} {model.config} {model.dtype} {model.kv_dtype}".encode())
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\0".encode())
        digest.update(_sample(tensor))
    return digest.hexdigest()[:32]


def _sample(tensor: Tensor) -> bytes:
    flat = tensor.detach().reshape(-1)
    middle = max(len(flat) // 2 - _SAMPLE // 2, 0)
    parts = [flat[:_SAMPLE], flat[middle : middle + _SAMPLE], flat[-_SAMPLE:]]
    return bytes(torch.cat(parts).contiguous().view(torch.uint8).cpu().numpy())
