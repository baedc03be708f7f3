"""Settings: order of sources, bounds, and errors that name what to do."""

from pathlib import Path

import pytest

from glm_rag.build import build_llm, llm_name
from glm_rag.config import load_config
from glm_rag.errors import ConfigError

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))


def write(folder, text):
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_later_sources_win_over_earlier_ones(tmp_path):
    file = write(tmp_path, "retrieval: {k: 3, candidates: 30}\nmodel: {name: from-file}")
    environ = {"GLM_RAG_RETRIEVAL__K": "4", "GLM_RAG_MODEL__NAME": "from-environment"}
    settings = load_config(file, environ=environ, overrides={"retrieval.k": 5})
    assert settings.retrieval.k == 5
    assert settings.model.name == "from-environment"
    assert settings.retrieval.candidates == 30
    assert settings.splitting.chunk_tokens == 256


def test_unset_overrides_leave_the_setting_alone():
    assert load_config(overrides={"model.name": None}).model.name == "smollm2-135m"


def test_the_data_folder_holds_a_default_config(home):
    (home / "config.yaml").write_text("model: {name: mine}", encoding="utf-8")
    assert load_config().model.name == "mine"


def test_a_named_config_replaces_the_default_one(home, tmp_path, monkeypatch):
    (home / "config.yaml").write_text("model: {name: mine}", encoding="utf-8")
    monkeypatch.setenv("GLM_RAG_CONFIG", str(write(tmp_path, "retrieval: {k: 2}")))
    settings = load_config()
    assert (settings.model.name, settings.retrieval.k) == ("smollm2-135m", 2)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda path: path.name)
def test_every_example_profile_is_valid(file):
    assert load_config(file).model.name


@pytest.mark.parametrize("file", CONFIGS, ids=lambda path: path.name)
def test_every_example_profile_names_a_model_that_can_be_built(file):
    settings = load_config(file)
    assert build_llm(settings) is not None
    assert llm_name(settings)


def test_there_are_example_profiles():
    assert len(CONFIGS) >= 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retreival: {k: 3}", r"unknown setting `retreival`.*did you mean `retrieval`\?"),
        ("model: {nmae: x}", r"unknown setting `model.nmae`.*did you mean `model.name`\?"),
        ("zzz: {k: 3}", r"unknown setting `zzz` in .*; there are: .*retrieval"),
        ("model: fast", "`model` in .* must be a section"),
        ("retrieval: {k: 0}", "setting `retrieval.k`: .*greater than or equal to 1"),
        ("generation: {top_p: 2}", "setting `generation.top_p`"),
        ("- a\n- b", "must hold sections"),
        ("model: [unclosed", "not valid YAML"),
    ],
)
def test_a_wrong_file_gets_one_clear_line(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_an_unknown_environment_variable_is_named():
    with pytest.raises(ConfigError, match=r"model\.thread.*did you mean `model\.threads`"):
        load_config(environ={"GLM_RAG_MODEL__THREAD": "2"})


def test_an_environment_value_that_is_not_yaml_is_an_error_and_not_a_traceback():
    with pytest.raises(ConfigError, match="GLM_RAG_MODEL__NAME"):
        load_config(environ={"GLM_RAG_MODEL__NAME": "[unclosed"})


def test_a_value_where_a_section_stands_is_refused():
    with pytest.raises(ConfigError, match="must be a section"):
        load_config(environ={"GLM_RAG_MODEL": "x", "GLM_RAG_MODEL__NAME": "y"})


def test_a_missing_config_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read config file .*absent\.yaml"):
        load_config(tmp_path / "absent.yaml")


def test_settings_cannot_be_changed_in_place():
    settings = load_config()
    with pytest.raises(ValueError, match="frozen"):
        settings.model.name = "other"


def test_home_folders_are_expanded_and_other_tildes_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    text = "home: ~/data\nmodel: {prefix_checkpoint: ~nobody-has-this-name/p}"
    settings = load_config(write(tmp_path, text))
    assert settings.home == tmp_path / "data"
    assert settings.model.prefix_checkpoint == Path("~nobody-has-this-name/p")


def test_a_bottomless_yaml_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(write(tmp_path, "model: " + "[" * 5000))


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_that_no_generator_takes_is_refused(seed):
    with pytest.raises(ConfigError, match=r"generation\.seed"):
        load_config(overrides={"generation.seed": seed})
