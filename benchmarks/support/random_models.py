"""The shape of ChatGLM2-6B-32K, filled with random 4-bit weights, for either engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from glm_rag.engine.quantize import choose_group, packed_shapes
from glm_rag.models.quantized import write_safetensors

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


SHAPES = {"6b": Shape(), "tiny": Shape(layers=2, hidden=512, ffn=1024, heads=4, vocab=4096)}


def converted_folder(cache: Path, shape: str, *, group: int = 32, embedding_bits: int = 8) -> Path:
    """A converted int4 checkpoint in the cache folder, written if it is not there yet."""
    folder = cache / f"{shape}-int4-g{group}-e{embedding_bits}"
    if not (folder / "config.json").is_file():
        write_converted(folder, SHAPES[shape], group=group, embedding_bits=embedding_bits)
    return folder


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


def write_converted(folder: Path, shape: Shape, *, group: int, embedding_bits: int = 4) -> None:
    """The same shape as a converted int4 checkpoint, with a tokenizer of single bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(_converted_tensors(shape, group, embedding_bits))
    write_safetensors(
        folder / "model.safetensors",
        {name: torch.from_numpy(tensor) for name, tensor in tensors.items()},
    )
    (folder / "tokenizer.json").write_text(byte_tokenizer(), encoding="utf-8")
    config = {
        "model_type": "chatglm",
        "name": "random-6b",
        "num_layers": shape.layers,
        "hidden_size": shape.hidden,
        "ffn_hidden_size": shape.ffn,
        "kv_channels": shape.head_dim,
        "num_attention_heads": shape.heads,
        "multi_query_attention": True,
        "multi_query_group_num": shape.kv_groups,
        "padded_vocab_size": shape.vocab,
        "seq_length": shape.window,
        "add_qkv_bias": True,
        "rope_ratio": 16,
        "rope_mode": "interpolate",
        "tokenizer_kind": "chatml",
        "quantization": {"bits": 4, "group": group, "embedding_bits": embedding_bits},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def _converted_tensors(
    shape: Shape, group: int, embedding_bits: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and values of every tensor; matrices of one size share their memory."""
    random = np.random.default_rng(0)
    made: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def matrix(
        name: str, rows: int, columns: int, bits: int = 4
    ) -> Iterator[tuple[str, np.ndarray]]:
        if (rows, columns) not in made:
            packed, scales = packed_shapes(rows, columns, bits, choose_group(columns, group))
            values = random.integers(0, 256, packed, dtype=np.uint8)
            made[rows, columns] = values, np.full(scales, SCALE)
        packed, scales = made[rows, columns]
        yield f"transformer.{name}.packed", packed
        yield f"transformer.{name}.scales", scales

    yield from matrix("embedding.word_embeddings", shape.vocab, shape.hidden, embedding_bits)
    yield from matrix("output_layer", shape.vocab, shape.hidden, embedding_bits)
    one = np.ones(shape.hidden, np.float16)
    yield "transformer.encoder.final_layernorm.weight", one
    heads = shape.heads * shape.head_dim
    for layer in range(shape.layers):
        block = f"encoder.layers.{layer}."
        yield f"transformer.{block}input_layernorm.weight", one
        yield f"transformer.{block}post_attention_layernorm.weight", one
        bias = np.zeros(shape.qkv, np.float16)
        yield f"transformer.{block}self_attention.query_key_value.bias", bias
        qkv = block + "self_attention.query_key_value"
        yield from matrix(qkv, shape.qkv, shape.hidden)
        yield from matrix(block + "self_attention.dense", shape.hidden, heads)
        yield from matrix(block + "mlp.dense_h_to_4h", 2 * shape.ffn, shape.hidden)
        yield from matrix(block + "mlp.dense_4h_to_h", shape.hidden, shape.ffn)


def byte_tokenizer() -> str:
    """A tokenizer.json with one id per byte and the ChatML tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return str(tokenizer.to_str())
