"""`glm-rag model`: what a user sees and what a program reads."""

from __future__ import annotations

import json

import pytest
from tiny_folders import write_chatglm2_folder
from typer.testing import CliRunner

from glm_rag.cli import model as cli
from glm_rag.errors import ConfigError, GlmRagError, ModelNotFoundError
from glm_rag.models import hub
from glm_rag.models.registry import MODELS


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()

    def invoke(*arguments, **options):
        return runner.invoke(cli.app, list(arguments), **options)

    return invoke


@pytest.fixture
def download(monkeypatch):
    """Downloads that copy a tiny folder instead."""
    done = []

    def fake(spec, source, folder, inspect):
        done.append((spec.name, source))
        inspect(write_chatglm2_folder(folder))

    monkeypatch.setattr(hub, "download", fake)
    return done


def test_list_shows_every_model_and_its_state(run, chatglm2_folder):
    assert run("pull", "chatglm2-6b-32k", "--from", str(chatglm2_folder)).exit_code == 0
    shown = run("list")
    assert shown.exit_code == 0
    assert all(name in shown.stdout for name in MODELS)
    rows = json.loads(run("list", "--json").stdout)
    states = {row["name"]: row["state"] for row in rows}
    assert states.pop("chatglm2-6b-32k") == "linked"
    assert set(states.values()) == {"not pulled"}


def test_pull_says_where_the_model_is_and_json_stays_json(run, tiny_smollm2, tiny_gguf, models_dir):
    shown = run("pull", "smollm2-135m", "--from", str(tiny_gguf))
    assert shown.exit_code == 0
    assert f"smollm2-135m is ready in {models_dir / 'smollm2-135m'}" in shown.stdout
    again = run("pull", "smollm2-135m", "--json")
    assert json.loads(again.stdout)["state"] == "ready"


def test_info_shows_size_window_and_memory(run, chatglm2_folder):
    shown = run("info", str(chatglm2_folder)).stdout
    for part in ("parameters", "context window", "64 tokens", "interpolate", "memory bfloat16"):
        assert part in shown
    found = json.loads(run("info", str(chatglm2_folder), "--json").stdout)
    assert found["context_window"] == 64
    assert found["kv_bytes_per_token"] == {"float32": 32, "bfloat16": 16, "float16": 16}


def test_the_licence_is_shown_and_asked_for_once(run, download, monkeypatch):
    monkeypatch.setattr(cli, "_is_interactive", lambda: True)
    refused = run("pull", "chatglm2-6b-32k", input="n\n")
    assert refused.exit_code == 1
    assert "No military" in refused.stdout
    assert not download
    accepted = run("pull", "chatglm2-6b-32k", input="y\n")
    assert accepted.exit_code == 0
    assert download == [("chatglm2-6b-32k", "hf")]
    third = run("pull", "chatglm2-6b-32k-int4", input="")
    assert "No military" not in third.stdout
    assert len(download) == 2


def test_without_a_terminal_the_licence_wants_the_option(run, download):
    shown = run("pull", "chatglm2-6b-32k")
    assert isinstance(shown.exception, ConfigError)
    assert "--accept-license" in str(shown.exception)
    assert not download
    assert run("pull", "chatglm2-6b-32k", "--accept-license").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["pull", "smolm2"], ModelNotFoundError),
        (["pull", "chatglm2-6b", "--from", "nowhere"], ConfigError),
        (["info", "smollm2-135m"], ModelNotFoundError),
        (["info", "/no/such/folder"], ModelNotFoundError),
    ],
)
def test_errors_are_the_projects_own_and_one_line(run, arguments, error):
    shown = run(*arguments)
    assert isinstance(shown.exception, error)
    assert isinstance(shown.exception, GlmRagError)
    assert "\n" not in str(shown.exception)


@pytest.mark.parametrize("command", ["list", "pull", "info"])
def test_help_holds_an_example(run, command):
    assert f"glm-rag model {command}" in run(command, "--help").stdout


def test_brackets_in_a_folder_name_are_no_markup(run, chatglm2_folder):
    folder = chatglm2_folder.parent / "m[" / "b]x"
    folder.parent.mkdir()
    chatglm2_folder.rename(folder)
    shown = run("info", str(folder))
    assert shown.exit_code == 0, shown.exception
    assert str(folder) in "".join(shown.stdout.split())


def test_a_name_too_long_for_the_file_system_is_one_line(run):
    assert isinstance(run("info", "x" * 5000).exception, ModelNotFoundError)


def test_convert_saves_a_model_under_a_telling_name(run, smollm2, models_dir):
    models_dir.mkdir(parents=True, exist_ok=True)
    (models_dir / "mine").symlink_to(smollm2, target_is_directory=True)
    shown = run("convert", "mine", "--quantize", "int8", "--group", "128")
    assert shown.exit_code == 0
    assert f"Saved in {models_dir / 'mine-int8-g128'}" in shown.stdout
    info = json.loads(run("info", "mine-int8-g128", "--json").stdout)
    assert info["file_dtype"] == "int8"
    assert info["size_bytes"] < 0.3 * sum(f.stat().st_size for f in smollm2.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name what to round the weights to"),
        (("--quantize", "int4", "--group", "48"), "group must be one of 32, 128"),
    ],
)
def test_convert_says_what_is_missing(run, smollm2, arguments, message):
    failed = run("convert", str(smollm2), *arguments)
    assert isinstance(failed.exception, ConfigError)
    assert message in str(failed.exception)


def test_convert_never_overwrites(run, smollm2, tmp_path):
    (tmp_path / "out").mkdir()
    failed = run("convert", str(smollm2), "--quantize", "int4", "--out", str(tmp_path / "out"))
    assert isinstance(failed.exception, ConfigError)
    assert "exists" in str(failed.exception)
