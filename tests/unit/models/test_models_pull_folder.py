"""A folder of the user's is linked as it is, if it is whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from pulled import is_one_line
from tiny_folders import write_chatglm2_folder

from glm_rag.errors import CheckpointError, ModelError, ModelNotFoundError
from glm_rag.models.loading import resolve
from glm_rag.models.pull import pull


def test_a_local_folder_is_linked_not_copied_and_wants_no_licence(chatglm2_folder, models_dir):
    folder = pull("chatglm2-6b-32k", models_dir=models_dir, source=str(chatglm2_folder))
    assert folder.is_symlink()
    assert folder.resolve() == chatglm2_folder.resolve()
    assert resolve("chatglm2-6b-32k", models_dir) == folder


def test_a_link_can_be_moved_to_another_folder_and_tells_when_it_is_gone(
    chatglm2_folder, models_dir, tmp_path
):
    pull("chatglm2-6b-32k", models_dir=models_dir, source=str(chatglm2_folder))
    shutil.rmtree(chatglm2_folder)
    with pytest.raises(ModelNotFoundError, match="is gone"):
        resolve("chatglm2-6b-32k", models_dir)
    other = write_chatglm2_folder(tmp_path / "other")
    folder = pull("chatglm2-6b-32k", models_dir=models_dir, source=str(other))
    assert folder.resolve() == other.resolve()


def test_a_downloaded_model_is_not_replaced_by_a_link(chatglm2_folder, models_dir):
    write_chatglm2_folder(models_dir / "chatglm2-6b-32k")
    with pytest.raises(ModelError, match="is already in"):
        pull("chatglm2-6b-32k", models_dir=models_dir, source=str(chatglm2_folder))


def remove_shard(folder: Path) -> None:
    (folder / "pytorch_model-00002-of-00002.bin").unlink()


def truncate_shard(folder: Path) -> None:
    shard = folder / "pytorch_model-00001-of-00002.bin"
    shard.write_bytes(shard.read_bytes()[:-30])


def put_lfs_pointer(folder: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / "pytorch_model-00001-of-00002.bin").write_text(pointer)


def remove_weights(folder: Path) -> None:
    for path in folder.glob("pytorch_model*"):
        path.unlink()


def cut_safetensors(folder: Path) -> None:
    remove_weights(folder)
    (folder / "model.safetensors").write_bytes((9999).to_bytes(8, "little") + b"{}")


BROKEN = {
    "no config": (lambda f: (f / "config.json").unlink(), "it has no config.json"),
    "config is no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json"),
    "a shard is missing": (remove_shard, "misses 1 of 2 weight files"),
    "a shard is truncated": (truncate_shard, "truncated"),
    "cloned without git-lfs": (put_lfs_pointer, "git lfs pull"),
    "no weights": (remove_weights, "has no weights"),
    "cut safetensors": (cut_safetensors, "no safetensors file"),
    "no tokenizer": (lambda f: (f / "tokenizer.model").unlink(), "has no tokenizer.model"),
    "another model": (lambda f: write_chatglm2_folder(f, rope_ratio=1), "is not chatglm2-6b-32k"),
    "another family": (lambda f: write_chatglm2_folder(f, model_type="llama"), "model_type"),
}


@pytest.mark.parametrize(("spoil", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_folder_is_refused_with_its_reason(spoil, reason, chatglm2_folder, models_dir):
    spoil(chatglm2_folder)
    with pytest.raises(ModelError, match=reason) as error:
        pull("chatglm2-6b-32k", models_dir=models_dir, source=str(chatglm2_folder))
    assert is_one_line(error)
    assert not os.path.lexists(models_dir / "chatglm2-6b-32k")


def test_an_index_of_things_that_are_no_names_is_refused(chatglm2_folder, models_dir):
    index = chatglm2_folder / "pytorch_model.bin.index.json"
    index.write_text('{"weight_map": {"a": 5}}')
    with pytest.raises(CheckpointError, match="no weight file"):
        pull("chatglm2-6b-32k", models_dir=models_dir, source=str(chatglm2_folder))
