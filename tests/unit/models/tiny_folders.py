"""A folder laid out as the published one, with a few bytes of weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch

TINY_CONFIG = {
    "_name_or_path": "THUDM/chatglm2-6b-32k",
    "model_type": "chatglm",
    "num_layers": 1,
    "hidden_size": 8,
    "ffn_hidden_size": 12,
    "kv_channels": 4,
    "num_attention_heads": 2,
    "multi_query_attention": True,
    "multi_query_group_num": 1,
    "padded_vocab_size": 16,
    "seq_length": 64,
    "rope_ratio": 16,
    "add_qkv_bias": True,
    "torch_dtype": "float16",
}


def write_chatglm2_folder(folder: Path, **changes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(TINY_CONFIG | changes))
    (folder / "tokenizer.model").write_bytes(b"pieces")
    shards = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    for name, file in shards.items():
        torch.save({name: torch.zeros(4)}, folder / file)
    index = {"metadata": {"total_size": 32}, "weight_map": shards}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder
