"""Device, precision, threads and memory: sensible defaults, clear refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from glm_rag.engine import memory, placement
from glm_rag.engine.engine import Engine
from glm_rag.errors import ConfigError, ModelError
from glm_rag.types import SamplingParams
from tiny_checkpoints import TINY, tiny_engine, write_checkpoint

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
SMALL = TINY
LARGE = replace(TINY, num_layers=28, hidden_size=4096, ffn_hidden_size=13696)
QUANTIZED = LARGE.quantized("int4")


@pytest.mark.parametrize(
    ("config", "expected"),
    [(SMALL, torch.float32), (LARGE, torch.bfloat16), (QUANTIZED, torch.float32)],
)
def test_auto_dtype_on_the_cpu_depends_on_size(config, expected):
    assert placement.choose_dtype("auto", CPU, config) == expected


def test_keys_and_values_of_a_quantized_model_take_16_bits_on_the_cpu():
    assert placement.choose_kv_dtype("auto", CPU, QUANTIZED) == torch.bfloat16
    assert placement.choose_kv_dtype("auto", CPU, LARGE) is None
    assert placement.choose_kv_dtype("auto", CUDA, QUANTIZED) is None
    assert placement.choose_kv_dtype("int8", CPU, LARGE) == torch.int8
    with pytest.raises(ConfigError, match="kv_cache must be"):
        placement.choose_kv_dtype("int4", CPU, LARGE)


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_auto_dtype_on_cuda_depends_on_the_card(monkeypatch, has_bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_bf16)
    assert placement.choose_dtype("auto", CUDA, LARGE) == expected


def test_half_precision_on_the_cpu_is_refused():
    with pytest.raises(ConfigError, match="float16"):
        placement.choose_dtype("float16", CPU, SMALL)
    assert placement.choose_dtype("float16", CUDA, SMALL) == torch.float16
    with pytest.raises(ConfigError, match="dtype must be"):
        placement.choose_dtype("int8", CPU, SMALL)


def test_auto_device_is_cuda_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert placement.choose_device("auto") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert placement.choose_device("auto") == CUDA
    assert placement.choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match="only 2"):
        placement.choose_device("cuda:2")


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_cuda_without_a_device_is_a_clear_error(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="set device to cpu"):
        placement.choose_device(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "", "mps"])
def test_unknown_devices_are_refused(name):
    with pytest.raises(ConfigError, match="device must be"):
        placement.choose_device(name)


def test_threads_are_set_and_never_exceed_cores_by_default():
    before = torch.get_num_threads()
    try:
        placement.set_threads(1)
        assert torch.get_num_threads() == 1
        placement.set_threads(None)
        assert torch.get_num_threads() == 1
        with pytest.raises(ConfigError):
            placement.set_threads(0)
    finally:
        torch.set_num_threads(before)
    assert placement.physical_cores() >= 1


def test_a_model_that_does_not_fit_is_refused_before_loading(tmp_path, monkeypatch):
    write_checkpoint(tmp_path)
    monkeypatch.setattr(memory, "available_bytes", lambda device: TINY.num_parameters * 4 - 1)
    with pytest.raises(ModelError, match=r"the model in float32 needs .* GiB"):
        Engine.load(tmp_path)
    Engine.load(tmp_path, dtype="bfloat16")


def test_a_cache_that_does_not_fit_is_refused_before_computing(monkeypatch):
    engine = tiny_engine()
    per_token = TINY.cache_values_per_token * 4
    monkeypatch.setattr(memory, "available_bytes", lambda device: 512 * per_token)
    params = SamplingParams(max_tokens=100, temperature=0)
    with pytest.raises(ModelError, match="KV cache of 513 tokens"):
        engine.generate([1] * 413, params)
    assert list(engine.generate([1] * 300, params))


def test_unknown_memory_refuses_nothing(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: None)
    memory.require_memory(2**60, CPU, "anything")


def test_available_memory_is_read_from_the_system(tmp_path, monkeypatch):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 10 kB\nMemAvailable:    7 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.available_bytes(CPU) == 7 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 500\n")
    assert memory.available_bytes(CPU) == 2500
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes(CPU) == 7 * 1024
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "absent")
    assert memory.available_bytes(CPU) is None


def test_rotary_table_names_are_checked(tmp_path):
    with pytest.raises(ConfigError, match="rope_table"):
        Engine.load(write_checkpoint(tmp_path), rope_table="float64")


def test_window_is_the_length_of_the_rotary_table():
    engine = tiny_engine(seq_length=77)
    assert len(engine.model.rotary) == engine.context_window == 77
    assert replace(TINY, seq_length=77) == engine.config


def test_a_window_whose_rotary_table_does_not_fit_is_refused(tmp_path):
    folder = write_checkpoint(tmp_path, replace(TINY, seq_length=10**13))
    with pytest.raises(ModelError, match="positions of"):
        Engine.load(folder)
