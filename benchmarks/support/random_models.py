"""The shape of ChatGLM2-6B-32K, filled with random 4-bit weights for llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Q4_0_BLOCK = 32  # values that share a scale
Q4_0_BYTES = 18  # a float16 scale and 32 half bytes
SCALE = np.float16(0.002)
RANDOM_ROWS = 512  # repeated downwards: nobody's speed depends on what the weights are


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a ChatGLM2-form model; defaults are those of ChatGLM2-6B-32K."""

    layers: int = 28
    hidden: int = 4096
    ffn: int = 13696
    heads: int = 32
    kv_groups: int = 2
    head_dim: int = 128
    vocab: int = 65024
    window: int = 32768

    @property
    def qkv(self) -> int:
        """Rows of the fused query, key and value projection."""
        return (self.heads + 2 * self.kv_groups) * self.head_dim

    def matrices(self, layer: int) -> Iterator[tuple[str, int, int]]:
        """GGUF name, rows and columns of a block's matrices."""
        block = f"blk.{layer}."
        yield block + "attn_qkv.weight", self.qkv, self.hidden
        yield block + "attn_output.weight", self.hidden, self.heads * self.head_dim
        yield block + "ffn_up.weight", 2 * self.ffn, self.hidden
        yield block + "ffn_down.weight", self.hidden, self.ffn


def write_gguf(path: Path, shape: Shape) -> None:
    """A Q4_0 model file (architecture chatglm) without a tokenizer, for llama-bench."""
    import gguf

    writer = gguf.GGUFWriter(path, "chatglm")
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.window)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_groups)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.head_dim // 2)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(shape.vocab)
    writer.add_tokenizer_model("none")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    quantized = gguf.GGMLQuantizationType.Q4_0
    tensors = dict(_tensors(shape))
    for name, tensor in tensors.items():
        kind = quantized if tensor.dtype == np.uint8 else None
        writer.add_tensor_info(name, tensor.shape, tensor.dtype, tensor.nbytes, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors.values():
        writer.write_tensor_data(tensor)
    writer.close()


def _tensors(shape: Shape) -> Iterator[tuple[str, np.ndarray]]:
    """Name and bytes of every tensor; matrices of one size share their memory."""
    random = np.random.default_rng(0)
    made: dict[tuple[int, int], np.ndarray] = {}

    def matrix(rows: int, columns: int) -> np.ndarray:
        if (rows, columns) not in made:
            made[rows, columns] = _random_q4_0(random, rows, columns)
        return made[rows, columns]

    yield "token_embd.weight", matrix(shape.vocab, shape.hidden)
    yield "output.weight", matrix(shape.vocab, shape.hidden)
    yield "output_norm.weight", np.ones(shape.hidden, np.float32)
    for layer in range(shape.layers):
        for norm in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{norm}.weight", np.ones(shape.hidden, np.float32)
        yield f"blk.{layer}.attn_qkv.bias", np.zeros(shape.qkv, np.float32)
        for name, rows, columns in shape.matrices(layer):
            yield name, matrix(rows, columns)


def _random_q4_0(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    blocks = columns // Q4_0_BLOCK
    head = random.integers(0, 256, (min(rows, RANDOM_ROWS), blocks, Q4_0_BYTES), dtype=np.uint8)
    head[..., :2] = np.frombuffer(SCALE.tobytes(), np.uint8)
    head = head.reshape(len(head), blocks * Q4_0_BYTES)
    return np.tile(head, (-(-rows // len(head)), 1))[:rows]


def write_converted(folder: Path, shape: Shape, *, group: int) -> None:
    raise NotImplementedError
