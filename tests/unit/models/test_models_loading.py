"""From a name to a shared engine, and facts about a folder without loading it."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import pytest
from llama_reference import random_llama, write_gguf
from safetensors import safe_open
from tiny_folders import TINY_CONFIG, write_chatglm2_folder

from glm_rag.engine.engine import Engine
from glm_rag.errors import CheckpointError, ModelNotFoundError
from glm_rag.models import loading
from glm_rag.models.convert import convert_gguf
from glm_rag.models.loading import model_info, open_engine, release_engines, resolve
from glm_rag.settings import ModelSettings


@pytest.fixture(autouse=True)
def fresh_engines():
    release_engines()
    yield
    release_engines()


@pytest.fixture
def tiny_folder(tiny_gguf, tmp_path) -> Path:
    return convert_gguf(tiny_gguf, tmp_path / "tiny", name="tiny")


# ---------------------------------------------------------------- resolve


def test_a_known_model_that_is_not_here_says_how_to_pull_it(models_dir):
    with pytest.raises(ModelNotFoundError, match="glm-rag model pull chatglm2-6b-32k"):
        resolve("chatglm2-6b-32k", models_dir)


def test_a_path_and_a_folder_beside_the_pulled_models_resolve(tiny_folder, models_dir, monkeypatch):
    assert resolve(str(tiny_folder), models_dir) == tiny_folder
    shutil.copytree(tiny_folder, models_dir / "mine")
    assert resolve("mine", models_dir) == models_dir / "mine"
    monkeypatch.setenv("HOME", str(tiny_folder.parent))
    assert resolve("~/tiny", models_dir) == tiny_folder


@pytest.mark.parametrize("name", ["", ".", "no/such/folder", "~/nothing", "smollm2"])
def test_what_is_no_model_is_refused_in_one_line(name, models_dir):
    models_dir.mkdir()
    with pytest.raises(ModelNotFoundError) as error:
        resolve(name, models_dir)
    assert "\n" not in str(error.value)


def test_a_typo_names_the_nearest_model(models_dir):
    with pytest.raises(ModelNotFoundError, match="did you mean smollm2-135m"):
        resolve("smollm2-135", models_dir)


# ---------------------------------------------------------------- engines


def count_loads(monkeypatch, *, seconds=0.0, fail_first=False) -> list[object]:
    loaded: list[object] = []
    real_load = Engine.load

    def load(folder, **options):
        loaded.append(folder)
        time.sleep(seconds)
        if fail_first and len(loaded) == 1:
            raise CheckpointError("first time is broken")
        return real_load(folder, **options)

    monkeypatch.setattr(Engine, "load", load)
    return loaded


def test_equal_settings_share_one_engine_and_others_do_not(tiny_folder, models_dir):
    settings = ModelSettings(name=str(tiny_folder), dtype="float32")
    engine = open_engine(settings, models_dir)
    assert open_engine(settings.model_copy(), models_dir) is engine
    other = ModelSettings(name=str(tiny_folder), dtype="bfloat16")
    assert open_engine(other, models_dir) is not engine


def test_threads_at_once_load_once(tiny_folder, models_dir, monkeypatch):
    loaded = count_loads(monkeypatch, seconds=0.2)
    settings = ModelSettings(name=str(tiny_folder), dtype="float32")
    engines = []
    threads = [
        threading.Thread(target=lambda: engines.append(open_engine(settings, models_dir)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 1
    assert len(engines) == 4
    assert len({id(engine) for engine in engines}) == 1


def test_a_failed_load_is_tried_again(tiny_folder, models_dir, monkeypatch):
    loaded = count_loads(monkeypatch, fail_first=True)
    settings = ModelSettings(name=str(tiny_folder), dtype="float32")
    with pytest.raises(CheckpointError, match="first time"):
        open_engine(settings, models_dir)
    assert open_engine(settings, models_dir)
    assert len(loaded) == 2


def test_a_link_and_its_folder_share_one_engine(tiny_folder, models_dir):
    models_dir.mkdir()
    (models_dir / "linked").symlink_to(tiny_folder)
    by_path = open_engine(ModelSettings(name=str(tiny_folder), dtype="float32"), models_dir)
    by_link = open_engine(ModelSettings(name="linked", dtype="float32"), models_dir)
    assert by_link is by_path


def test_released_engines_are_loaded_anew(tiny_folder, models_dir):
    settings = ModelSettings(name=str(tiny_folder), dtype="float32")
    engine = open_engine(settings, models_dir)
    assert release_engines() == 1
    assert release_engines() == 0
    assert open_engine(settings, models_dir) is not engine


# ---------------------------------------------------------------- info


def test_info_counts_what_the_file_holds(tiny_folder):
    found = model_info(tiny_folder)
    with safe_open(tiny_folder / "model.safetensors", "np") as file:
        stored = sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118
    assert found.num_parameters == stored
    assert found.memory_bytes == {
        "float32": 4 * stored,
        "bfloat16": 2 * stored,
        "float16": 2 * stored,
    }
    assert found.size_bytes == (tiny_folder / "model.safetensors").stat().st_size
    assert (found.file_dtype, found.tokenizer, found.name) == ("float32", "tokenizer.json", "tiny")


def test_info_of_the_6b_shape_matches_the_published_figures(tmp_path):
    shape = {
        "num_layers": 28,
        "hidden_size": 4096,
        "ffn_hidden_size": 13696,
        "kv_channels": 128,
        "num_attention_heads": 32,
        "multi_query_group_num": 2,
        "padded_vocab_size": 65024,
        "seq_length": 32768,
    }
    found = model_info(write_chatglm2_folder(tmp_path / "chatglm2-6b-32k", **shape))
    assert found.num_parameters == 6_243_584_000
    assert found.kv_bytes_per_token["float16"] == 28 * 1024
    assert found.full_window_bytes["float16"] == 2 * 6_243_584_000 + 32768 * 28 * 1024
    assert (found.rope_mode, found.rope_ratio) == ("interpolate", 16)
    assert found.license == "ChatGLM2-6B License"
    assert found.file_dtype == "float16"


def test_info_loads_neither_weights_nor_torch(tmp_path):
    import subprocess
    import sys

    folder = write_chatglm2_folder(tmp_path / "m")
    script = (
        "import sys; from pathlib import Path; from glm_rag.models.loading import model_info; "
        "model_info(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True)


def test_info_takes_the_complete_kind_of_weights_as_the_engine_does(tmp_path):
    folder = write_chatglm2_folder(tmp_path / "m")
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    whole = write_chatglm2_folder(tmp_path / "n")
    assert model_info(folder).size_bytes == model_info(whole).size_bytes


def test_info_of_a_folder_without_weights_says_so(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TINY_CONFIG))
    with pytest.raises(CheckpointError, match="has no weights"):
        model_info(tmp_path)


def test_the_key_of_an_engine_covers_every_model_setting():
    fields = {"folder" if name == "name" else name for name in ModelSettings.model_fields}
    assert set(loading._Key._fields) == fields


def test_real_model_states_its_size(smollm2):
    found = model_info(smollm2)
    assert found.name == "smollm2-135m"
    assert found.license == "Apache-2.0"
    assert found.context_window == 8192
    assert found.num_parameters == 189_426_240


def test_an_untied_model_holds_no_more_than_a_tied_one(tmp_path):
    sizes = set()
    for tied in (True, False):
        gguf = write_gguf(random_llama(tied=tied), tmp_path / f"{tied}.gguf")
        sizes.add(model_info(convert_gguf(gguf, tmp_path / str(tied), name="m")).num_parameters)
    assert len(sizes) == 1
