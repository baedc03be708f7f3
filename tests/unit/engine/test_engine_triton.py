"""The Triton kernel: numbers by its interpreter, and machine code for devices that are absent."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason='triton is not installed: pip install "glm-rag[gpu]"',
)
CASES = Path(__file__).with_name("triton_cases.py")


def run(what, **environment):
    """Triton reads TRITON_INTERPRET when it is imported: a process of its own."""
    variables = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    variables |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    done = subprocess.run(
        [sys.executable, str(CASES), what], env=variables, capture_output=True, text=True,
        timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_interpreted_products_equal_the_dequantized_ones_in_every_shape():
    bounds = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2}
    errors = run("products", TRITON_INTERPRET="1")
    assert len(errors) == 80
    wrong = {
        name: error for name, error in errors.items() if not error < bounds[name.split("-")[-2]]
    }
    assert not wrong


def test_interpreted_decoding_steps_equal_those_of_the_modules():
    errors = run("decode", TRITON_INTERPRET="1")
    assert len(errors) == 12
    assert not {name: error for name, error in errors.items() if not error < 1e-5}


def test_the_kernels_compile_for_devices_of_three_generations(tmp_path):
    sizes = run("compile", TRITON_CACHE_DIR=str(tmp_path))
    assert len(sizes) == 30
    assert all(size > 1000 for size in sizes.values())


@pytest.mark.slow
def test_tiles_fit_any_card_and_weights_for_tensor_cores_stay_in_registers(tmp_path):
    found = run("tiles", TRITON_CACHE_DIR=str(tmp_path))
    assert len(found) == 24
    assert all(tile["shared"] <= 1 << 16 for tile in found.values())
    # A value that is read from shared memory, or moved through it, has another maker.
    made = {name: tile["maker"] for name, tile in found.items() if "tensor cores" in name}
    assert set(made.values()) == {"tt.reshape"}, made
