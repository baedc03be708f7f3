"""What is told about the machine."""

import pytest

pytest.importorskip("torch")

from glm_rag import machine
from glm_rag.config import load_config
from glm_rag.models import loading
from glm_rag.models.loading import loaded_engines, open_engine, release_engines


def test_sizes_are_those_of_this_process_and_folder(home):
    (home / "cache").mkdir()
    (home / "cache" / "kept").write_bytes(b"x" * 1000)
    found = machine.look(load_config())
    assert found.cache_files == 1000
    assert found.process_bytes is None or found.process_bytes > 10**7
    assert found.disk_bytes > 0
    assert found.versions["glm-rag"]
    assert "torch" in found.versions


def test_what_is_not_known_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "Path", lambda _name: tmp_path / "absent")
    assert machine.resident_bytes() is None


def test_free_space_is_known_before_the_folder_is_made(tmp_path):
    assert machine.free_disk(tmp_path / "not" / "yet") > 0


def test_loaded_models_are_named_until_they_are_released(home, smollm2, monkeypatch):
    monkeypatch.setattr(loading, "_slots", {})
    settings = load_config(None, overrides={"model.name": str(smollm2)})
    assert machine.look(settings).models == ()
    engine = open_engine(settings.model, settings.models_dir)
    assert loaded_engines() == [engine]
    assert machine.look(settings).models == (engine.name,)
    release_engines()
    assert machine.look(settings).models == ()
