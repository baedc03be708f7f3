"""The benchmarks' own logic: what is run, read back and compared. No figure is asserted."""

from __future__ import annotations

import json
import stat
import sys
import time
from dataclasses import replace

import engine_vs_llama_cpp
import gguf
import kernel_limits
import long_context
import numpy as np
import prefix_reuse
import pytest
import quantization_quality
import torch
from quantization_quality import Outcome
from safetensors.torch import load_file
from support import llama_cpp, random_models
from support.child import run_child
from support.random_models import Shape, converted_folder, write_converted, write_gguf
from support.record import save

from glm_rag.engine.config import ModelConfig, Quantization
from glm_rag.engine.engine import Engine
from glm_rag.engine.quantize import packed_shapes
from glm_rag.models.bench import quantization

TINY = Shape(layers=2, hidden=64, ffn=96, heads=2, kv_groups=1, head_dim=32, vocab=640, window=128)


def test_a_random_gguf_has_every_tensor_in_its_shape(tmp_path):
    write_gguf(tmp_path / "m.gguf", TINY)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    shapes = {t.name: (t.tensor_type.name, *reversed(t.shape.tolist())) for t in reader.tensors}
    assert shapes["token_embd.weight"] == shapes["output.weight"] == ("Q4_0", 640, 64)
    assert shapes["blk.1.attn_qkv.weight"] == ("Q4_0", 128, 64)
    assert shapes["blk.1.attn_output.weight"] == ("Q4_0", 64, 64)
    assert shapes["blk.1.ffn_up.weight"] == ("Q4_0", 192, 64)
    assert shapes["blk.1.ffn_down.weight"] == ("Q4_0", 64, 96)
    assert shapes["blk.1.attn_qkv.bias"] == ("F32", 128)
    assert len(shapes) == 3 + 2 * 7
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert np.isfinite(values).all()
        assert values.any() or tensor.name.endswith("bias")


def test_a_random_converted_folder_has_every_matrix_in_the_engines_layout(tmp_path):
    write_converted(tmp_path / "m", TINY, group=32)
    config = ModelConfig.from_folder(tmp_path / "m")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    parameters = 0
    for name, packed in tensors.items():
        if not name.endswith(".packed"):
            continue
        scales = tensors[name.replace(".packed", ".scales")]
        rows, columns = packed.shape[0] * 16, packed.shape[1] * 8
        assert (packed.shape, scales.shape) == packed_shapes(rows, columns, bits=4, group=32)
        parameters += rows * columns
    others = [t for name, t in tensors.items() if not name.endswith((".packed", ".scales"))]
    assert parameters + sum(t.numel() for t in others) == config.num_parameters
    assert engine_vs_llama_cpp.SHAPES["6b"].qkv == 4608
    engine = Engine.load(tmp_path / "m")
    assert engine.config.quantization == Quantization(bits=4, group=32, embedding_bits=4)
    assert torch.isfinite(engine.logits([1, 2, 3])).all()
    assert quantization(engine) == "int4, group 32"


def test_a_childs_own_peak_memory_is_reported():
    done = run_child(
        [sys.executable, "-c", "import time; b = b'x' * 10**8; time.sleep(1); print(1)"]
    )
    assert done.stdout == "1\n"
    assert 10**8 < done.peak_rss < 3 * 10**8


def test_a_failed_child_says_why():
    with pytest.raises(RuntimeError, match="no such model"):
        run_child([sys.executable, "-c", "import sys; sys.exit('no such model')"])


@pytest.fixture
def fake_llama_bench(tmp_path):
    """Answers as llama-bench does: a row for reading, a row for writing, at one depth."""
    program = tmp_path / "llama-bench"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, sys, time\n"
        "option = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n"
        "read, depth = int(option['-p']), int(option.get('-d', 0))\n"
        "rows = [{'n_prompt': read, 'n_gen': 0, 'n_depth': depth, 'avg_ts': 100.0}][:read]\n"
        "rows += [{'n_prompt': 0, 'n_gen': 4, 'n_depth': depth, 'avg_ts': 10.0 - depth / 1000}]\n"
        "rows[0]['build_commit'] = 'abc'\n"
        "time.sleep(0.3)\n"
        "print(json.dumps(rows))\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_llama_bench_reads_once_and_writes_at_every_context(fake_llama_bench, tmp_path):
    found = llama_cpp.measure(
        fake_llama_bench, tmp_path, threads=2, prompt=512, contexts=(0, 2000), num_tokens=4
    )
    assert found.prefill == 100.0
    assert found.decode == {0: 10.0, 2000: 8.0}
    assert found.peak_rss > 0
    assert llama_cpp.build_of(fake_llama_bench, tmp_path) == "abc"


def test_a_given_program_is_taken_before_one_on_the_path(fake_llama_bench, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    given = tmp_path / "other"
    assert llama_cpp.find_llama_bench(tmp_path, given, jobs=1) == given
    assert llama_cpp.find_llama_bench(tmp_path, None, jobs=1) == fake_llama_bench


def test_the_table_shows_medians_over_the_turns():
    turns = [
        engine_vs_llama_cpp.Turn(prefill=value, decode={0: value, 2048: 1.0}, peak_rss=2 * 10**9)
        for value in (1.0, 9.0, 2.0)
    ]
    row = engine_vs_llama_cpp.medians(turns)
    assert row["prefill 512"] == row["decode at 0"] == 2.0
    assert row["decode at 2048"] == 1.0
    assert row["peak RSS, GB"] == 2.0


def test_the_best_pattern_of_each_limit_counts():
    rows = [
        {"limit": "read_gbs", "threads": 1, "value": 3.0},
        {"limit": "read_gbs", "threads": 1, "value": 4.0},
        {"limit": "read_gbs", "threads": 2, "value": 2.0},
    ]
    assert kernel_limits.best(rows) == rows[1:]


@pytest.mark.parametrize(
    ("answer", "position"),
    [([1, 2, 3], 64), ([9, 2, 3], 0), ([1, 2, 9], 2), ([1, 2], 2), ([1, 2, 3, 4], 3)],
)
def test_first_difference_counts_equal_tokens_before_it(answer, position):
    assert quantization_quality.first_difference(answer, [1, 2, 3]) == position


def test_quality_is_stated_relative_to_the_reference():
    reference = Outcome(10.0, [1, 2, 3, 4], [[1, 2], [3, 4]])
    row = quantization_quality.compare(Outcome(11.0, [1, 2, 3, 9], [[1, 2], [3, 9]]), reference)
    assert row["change, %"] == 10.0
    assert row["same next token, %"] == row["same tokens, %"] == 75.0
    assert row["equal answers, %"] == 50.0
    assert row["first difference"] == (64 + 1) / 2


def test_a_model_in_the_cache_folder_is_written_once(tmp_path, monkeypatch):
    monkeypatch.setitem(random_models.SHAPES, "6b", TINY)
    folder = converted_folder(tmp_path, "6b")
    weights = folder / "model.safetensors"
    written = weights.stat().st_mtime_ns
    assert converted_folder(tmp_path, "6b") == folder
    assert weights.stat().st_mtime_ns == written
    assert converted_folder(tmp_path, "6b", embedding_bits=4) != folder


def test_a_passage_that_one_process_read_is_not_read_again(tmp_path):
    write_converted(tmp_path / "m", replace(TINY, window=1024), group=32)
    same = {"folder": str(tmp_path / "m"), "kv_type": "int8", "threads": 1}
    prefix_reuse.run_job("read", json.dumps(same | {"store": str(tmp_path / "kv")}))
    asked = same | {"turn": 0, "started": time.monotonic()}
    cold = prefix_reuse.run_job("ask", json.dumps(asked | {"store": None}))
    warm = prefix_reuse.run_job("ask", json.dumps(asked | {"store": str(tmp_path / "kv")}))
    assert cold["cached"] == 0
    assert warm["cached"] == prefix_reuse.SYSTEM + prefix_reuse.PASSAGE
    assert warm["whole"] >= warm["without imports"] >= warm["loading"] > 0


def test_a_long_context_is_filled_and_only_its_end_is_read(tmp_path):
    write_converted(tmp_path, replace(TINY, window=1024), group=32)
    row = long_context.probe(tmp_path, "bfloat16", 1024, 128, threads=1)
    assert (row["context"], row["read"]) == (1024, 128)
    assert row["decode, tok/s"] > 0


def test_a_result_says_where_and_with_what_it_was_measured(tmp_path):
    path = save(tmp_path, "some_question", ("numpy", "no-such-package"), {"rows": {"a": 1}})
    result = json.loads(path.read_text("utf-8"))
    assert result["benchmark"] == "some_question"
    assert result["commit"]
    assert result["machine"]["cpu"]
    assert result["versions"] == {"numpy": np.__version__, "no-such-package": "absent"}
    assert result["rows"] == {"a": 1}
