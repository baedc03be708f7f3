"""Write a ChatGLM2 checkpoint as one GGUF file that stock llama.cpp runs with the right positions.

llama.cpp's own converter multiplies the rotary base for every ChatGLM. Its kernel for the
architecture `chatglm` honours `rope.scaling.type` linear like that of any other, so it is enough to
state that: positions are then divided by the factor.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from glm_rag.engine.config import ModelConfig
from glm_rag.errors import MissingDependencyError
from glm_rag.models.export.chat_templates import CHATGLM2_TEMPLATE
from glm_rag.models.export.parts import Part, part_bytes
from glm_rag.models.export.sentencepiece_json import special_tokens
from glm_rag.models.export.source_tensors import SourceTensors
from glm_rag.models.storage import OnProgress

_ARCHITECTURE = "chatglm"
_NAMES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
_EOS_ID, _UNKNOWN_ID = 2, 0


def write_gguf(
    source: SourceTensors,
    tokenizer: Path,
    config: ModelConfig,
    folder: Path,
    *,
    dtype: torch.dtype,
    on_progress: OnProgress,
) -> int:
    """Write `model-TYPE.gguf` into `folder`: matrices in `dtype`, vectors in float32.

    Raises:
        ModelError: a value is too large for float16.
        MissingDependencyError: gguf or sentencepiece is not installed.
    """
    try:
        import gguf
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise MissingDependencyError.for_extra(error.name or "gguf", "engine") from error
    logging.getLogger("gguf").setLevel(logging.WARNING)  # it tells where it writes
    kinds = {
        torch.float32: gguf.GGMLQuantizationType.F32,
        torch.float16: gguf.GGMLQuantizationType.F16,
        torch.bfloat16: gguf.GGMLQuantizationType.BF16,
    }
    writer: Any = gguf.GGUFWriter(folder / f"model-{_NAMES[dtype]}.gguf", _ARCHITECTURE)
    _add_shape(writer, config)
    processor = SentencePieceProcessor(model_proto=tokenizer.read_bytes())
    _add_tokenizer(writer, gguf.TokenType, processor, config.padded_vocab_size)
    parts = [(part, dtype if part.columns else torch.float32) for part in gguf_parts(config)]
    for part, kind in parts:
        size = part.num_values * kind.itemsize
        writer.add_tensor_info(part.name, part.shape, None, size, raw_dtype=kinds[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    total = sum(part.num_values * kind.itemsize for part, kind in parts)
    written = 0
    for size in _write_weights(writer, source, parts):
        written += size
        on_progress("writing", written, total)
    writer.close()
    return 1


def _write_weights(
    writer: Any, source: SourceTensors, parts: Sequence[tuple[Part, torch.dtype]]
) -> Iterator[int]:
    """Write all values behind the header; yields the bytes of each block."""
    [file] = writer.fout
    writer.write_padding(file, file.tell())
    for part, kind in parts:
        for block in part_bytes(source, part, kind):
            yield file.write(block)
        writer.write_padding(file, part.num_values * kind.itemsize)


def gguf_parts(config: ModelConfig) -> Iterator[Part]:
    """All tensors of the file; they differ from the source by name only."""
    hidden, vocabulary, ffn = config.hidden_size, config.padded_vocab_size, config.ffn_hidden_size
    yield Part("token_embd.weight", "embedding.word_embeddings.weight", 0, vocabulary, hidden)
    for layer in range(config.num_layers):
        source, target = f"encoder.layers.{layer}.", f"blk.{layer}."
        fused = "self_attention.query_key_value."
        yield Part(target + "attn_norm.weight", source + "input_layernorm.weight", 0, hidden)
        yield Part(
            target + "attn_qkv.weight", source + fused + "weight", 0, config.qkv_size, hidden
        )
        if config.add_qkv_bias:
            yield Part(target + "attn_qkv.bias", source + fused + "bias", 0, config.qkv_size)
        for new, old, rows, columns in (
            ("attn_output", "self_attention.dense", hidden, hidden),
            ("ffn_up", "mlp.dense_h_to_4h", 2 * ffn, hidden),
            ("ffn_down", "mlp.dense_4h_to_h", hidden, ffn),
        ):
            yield Part(f"{target}{new}.weight", f"{source}{old}.weight", 0, rows, columns)
        yield Part(
            target + "ffn_norm.weight", source + "post_attention_layernorm.weight", 0, hidden
        )
    yield Part("output_norm.weight", "encoder.final_layernorm.weight", 0, hidden)
    yield Part("output.weight", "output_layer.weight", 0, vocabulary, hidden)


def _add_shape(writer: Any, config: ModelConfig) -> None:
    writer.add_name(config.name or "ChatGLM2")
    writer.add_context_length(config.seq_length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.ffn_hidden_size)
    writer.add_block_count(config.num_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_kv_groups)
    writer.add_key_length(config.kv_channels)
    writer.add_value_length(config.kv_channels)
    writer.add_layer_norm_rms_eps(config.layernorm_epsilon)
    writer.add_rope_dimension_count(config.rotary_dim)
    writer.add_rope_freq_base(config.rope_theta)
    if config.position_divisor != 1:
        from gguf import RopeScalingType

        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.position_divisor)


def _add_tokenizer(writer: Any, types: Any, processor: Any, vocab_size: int) -> None:
    """Pieces, scores and kinds; llama.cpp joins pieces by score, as sentencepiece does."""
    num_pieces = processor.get_piece_size()
    tokens = [processor.id_to_piece(i) for i in range(num_pieces)]
    scores = [processor.get_score(i) for i in range(num_pieces)]
    kinds = [types.BYTE if processor.is_byte(i) else types.NORMAL for i in range(num_pieces)]
    missing = vocab_size - num_pieces
    tokens += [f"[UNUSED{num_pieces + i}]" for i in range(missing)]
    scores += [0.0] * missing
    kinds += [types.UNUSED] * missing
    for token, token_id in special_tokens(num_pieces).items():
        tokens[token_id] = token
        kinds[token_id] = types.UNKNOWN if token_id == _UNKNOWN_ID else types.CONTROL
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_eos_token_id(_EOS_ID)
    writer.add_unk_token_id(_UNKNOWN_ID)
    writer.add_pad_token_id(_UNKNOWN_ID)
    writer.add_add_bos_token(value=False)  # two ids begin a prompt; the template writes them
    writer.add_add_eos_token(value=False)
    writer.add_add_space_prefix(value=True)
    writer.add_chat_template(CHATGLM2_TEMPLATE)
