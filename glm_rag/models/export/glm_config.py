"""The JSON files of a `GlmForCausalLM` checkpoint, from what is known of a ChatGLM2-form model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glm_rag.engine.config import ModelConfig
from glm_rag.engine.tokenizer import Tokenizer, load_tokenizer
from glm_rag.errors import CheckpointError
from glm_rag.models.export.chat_templates import CHATGLM2_TEMPLATE, CHATML_TEMPLATE
from glm_rag.models.export.sentencepiece_json import (
    BOS_TOKEN,
    EOS_TOKEN,
    UNK_TOKEN,
    chatglm2_tokenizer_json,
)

# The published sampling of chat(), with the implicit top_k of its library.
_SAMPLING = {"do_sample": True, "temperature": 0.8, "top_p": 0.8, "top_k": 50}
_PAD_ID = 0
_CHATML_EOS = "<|im_end|>"


def glm_config(config: ModelConfig, *, dtype: str, eos: list[int], pad: int) -> dict[str, Any]:
    """`config.json`. Rotary settings stand there twice: for transformers 5, and for version 4 and
    what is built on it.

    `max_position_embeddings` is the window before scaling (2048 of 32768), as vLLM and SGLang
    multiply it by the factor of a linear scaling.
    """
    factor = config.position_divisor
    window = config.seq_length
    scaling: dict[str, Any] = {"rope_type": "default"}
    if factor != 1:
        scaling = {"rope_type": "linear", "factor": factor}
        window = max(1, round(window / factor))
    rope = {"rope_theta": config.rope_theta, "partial_rotary_factor": config.rotary_fraction}
    return {
        "architectures": ["GlmForCausalLM"],
        "model_type": "glm",
        "vocab_size": config.padded_vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.ffn_hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_kv_groups,
        "head_dim": config.kv_channels,
        "hidden_act": "silu",
        "rms_norm_eps": config.layernorm_epsilon,
        "max_position_embeddings": window,
        "attention_bias": config.add_qkv_bias,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "rope_parameters": {**scaling, **rope},
        **rope,
        **({"rope_scaling": scaling} if factor != 1 else {}),
        "torch_dtype": dtype,
    }


class ExportTokenizer:
    """The tokenizer files of an export: `tokenizer.json`, its config and its ids."""

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        """Read the tokenizer of a checkpoint folder.

        Raises:
            CheckpointError: it is absent, damaged or of a kind that has no exact form.
        """
        self._plain: Tokenizer = load_tokenizer(folder, config.tokenizer_kind)
        self._window = config.seq_length
        model = folder / "tokenizer.model"
        self.is_chatglm2 = config.tokenizer_kind != "chatml" and model.is_file()
        if self._plain.vocab_size > config.padded_vocab_size:
            raise CheckpointError(
                f"the tokenizer in {folder} has {self._plain.vocab_size:,} ids, config.json only "
                f"{config.padded_vocab_size:,}: it belongs to another model"
            )
        source = folder / "tokenizer.json"
        self.definition = (
            chatglm2_tokenizer_json(model)
            if self.is_chatglm2
            else source.read_text(encoding="utf-8")
        )

    @property
    def eos_ids(self) -> list[int]:
        """Ids that end an answer."""
        return sorted(self._plain.eos_token_ids)

    @property
    def pad_id(self) -> int:
        """0 for ChatGLM2, as published; else the id that ends a text."""
        return _PAD_ID if self.is_chatglm2 else self.eos_ids[0]

    def unused_ids(self, vocab_size: int) -> list[int]:
        """Rows of the matrices that no token has: they must not be sampled."""
        return list(range(self._plain.vocab_size, vocab_size))

    def config(self) -> Mapping[str, Any]:
        """`tokenizer_config.json`."""
        names = (
            {"eos_token": EOS_TOKEN, "bos_token": BOS_TOKEN, "unk_token": UNK_TOKEN}
            if self.is_chatglm2
            else {"eos_token": _CHATML_EOS}
        )
        pad = UNK_TOKEN if self.is_chatglm2 else self._token(self.pad_id)
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **names,
            "pad_token": pad,
            "model_max_length": self._window,
            "padding_side": "left",
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
            "chat_template": CHATGLM2_TEMPLATE if self.is_chatglm2 else CHATML_TEMPLATE,
        }

    def generation_config(self, vocab_size: int) -> Mapping[str, Any]:
        """`generation_config.json`: the published sampling; ids without a token are suppressed."""
        unused = self.unused_ids(vocab_size)
        sampling = _SAMPLING if self.is_chatglm2 else {"do_sample": False}
        return {
            **sampling,
            "eos_token_id": self.eos_ids,
            "pad_token_id": self.pad_id,
            **({"suppress_tokens": unused} if unused else {}),
        }

    def _token(self, token_id: int) -> str:
        from tokenizers import Tokenizer as Backend

        return str(Backend.from_str(self.definition).id_to_token(token_id))
