"""Models from a hub: what is asked for, what is resumed, and what is thrown away."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from pulled import is_one_line, leftovers

from glm_rag.errors import CheckpointError, MissingDependencyError, ModelError, ModelNotFoundError
from glm_rag.models.loading import resolve
from glm_rag.models.pull import pull


class FakeHub:
    """Stands for a hub client: copies what the patterns allow, and can break off."""

    def __init__(self, repository: Path, break_at: str = "") -> None:
        self.repository, self.break_at = repository, break_at
        self.asked: list[str] = []
        self.copied: list[str] = []

    def snapshot_download(self, _repo_id, *, local_dir, allow_patterns):
        self.asked += allow_patterns
        notes = Path(local_dir) / ".cache" / "huggingface"
        notes.mkdir(parents=True, exist_ok=True)
        (notes / "config.json.metadata").write_text("what the client keeps for itself")
        for name in allow_patterns:
            if name == self.break_at:
                raise ConnectionError("connection reset")
            source, target = self.repository / name, Path(local_dir) / name
            if source.is_file() and not target.exists():
                self.copied.append(name)
                shutil.copy(source, target)


@pytest.fixture
def fake_hub(chatglm2_folder, monkeypatch):
    (chatglm2_folder / "modeling_chatglm.py").write_text("raise SystemExit('remote code ran')")
    (chatglm2_folder / "model.safetensors").write_bytes(b"the same weights in another format")
    fake = FakeHub(chatglm2_folder)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fake.snapshot_download)
    return fake


def test_a_hub_download_takes_config_tokenizer_and_indexed_weights_only(fake_hub, models_dir):
    folder = pull("chatglm2-6b-32k", models_dir=models_dir, source="hf", accept_license=True)
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "tokenizer.model",
        "pytorch_model.bin.index.json",
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
    }
    assert not [name for name in fake_hub.asked if name.endswith(".py") or "*" in name]


def test_an_interrupted_download_resumes(fake_hub, models_dir):
    fake_hub.break_at = "pytorch_model-00002-of-00002.bin"
    with pytest.raises(ModelError, match="connection reset") as error:
        pull("chatglm2-6b-32k", models_dir=models_dir, accept_license=True)
    assert is_one_line(error)
    for help_ in ("--from modelscope", "--from FOLDER", "tokenizer.model", "config.json"):
        assert help_ in str(error.value)
    with pytest.raises(ModelNotFoundError):
        resolve("chatglm2-6b-32k", models_dir)
    fake_hub.break_at, fake_hub.copied = "", []
    pull("chatglm2-6b-32k", models_dir=models_dir)
    assert fake_hub.copied == ["pytorch_model-00002-of-00002.bin"]


def test_a_repository_of_another_model_is_refused_before_its_weights(fake_hub, models_dir):
    with pytest.raises(CheckpointError, match="rope_ratio 16, expected 1"):
        pull("chatglm2-6b", models_dir=models_dir, accept_license=True)
    assert not [name for name in fake_hub.asked if name.endswith(".bin")]


def test_a_truncated_download_is_thrown_away(fake_hub, models_dir):
    shard = fake_hub.repository / "pytorch_model-00001-of-00002.bin"
    shard.write_bytes(shard.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="truncated"):
        pull("chatglm2-6b-32k", models_dir=models_dir, accept_license=True)
    assert not leftovers(models_dir)


def test_modelscope_gets_the_same_request(fake_hub, models_dir, monkeypatch):
    module = type(sys)("modelscope")
    module.snapshot_download = fake_hub.snapshot_download
    monkeypatch.setitem(sys.modules, "modelscope", module)
    pull("chatglm2-6b-32k", models_dir=models_dir, source="modelscope", accept_license=True)
    assert (models_dir / "chatglm2-6b-32k" / "pytorch_model-00002-of-00002.bin").is_file()


def test_without_modelscope_the_extra_is_named(models_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(MissingDependencyError, match=r"glm-rag\[modelscope\]"):
        pull("chatglm2-6b-32k", models_dir=models_dir, source="modelscope", accept_license=True)


def test_an_index_cannot_name_files_outside_the_folder(fake_hub, models_dir):
    index = fake_hub.repository / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../evil.bin"}}))
    with pytest.raises(CheckpointError, match="no weight file"):
        pull("chatglm2-6b-32k", models_dir=models_dir, accept_license=True)
