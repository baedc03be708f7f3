"""Every way to multiply quantized weights: numerics, and which one is chosen and why."""

from __future__ import annotations

import base64
import bz2
import sys

import pytest
import torch

from glm_rag.engine.kernels import backend, cpm, fallback, native
from glm_rag.engine.kernels.backend import choose_backend
from glm_rag.engine.kernels.native_linear import make_linear
from glm_rag.engine.quantize import dequantize, from_official, pack, quantize
from glm_rag.errors import CheckpointError, ConfigError, ModelError

CPU = torch.device("cpu")
LAYOUTS = [(4, 32), (4, 128), (8, 32), (8, 128)]
SHAPES = [(1, 16, 128), (2, 37, 384), (7, 100, 32 * 9), (9, 65, 256), (70, 130, 32 * 3)]


def error(actual, expected):
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


def random_weight(bits, group, channels, columns):
    generator = torch.Generator().manual_seed(bits * group + channels + columns)
    return quantize(torch.randn(channels, columns, generator=generator), bits, group)


@pytest.fixture(params=["avx512", "avx2"])
def library(request):
    try:
        found = native.load(request.param)
    except ModelError as missing:
        pytest.skip(str(missing))
    found.set_threads(2)
    return found


@pytest.fixture
def linear(library):
    return make_linear(library)


# ---- native


@pytest.mark.parametrize(("bits", "group"), LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_native_products_are_within_one_percent(linear, bits, group, shape):
    rows, channels, columns = shape
    weight = random_weight(bits, group, channels, columns)
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
    assert error(linear(x, weight), x @ dequantize(weight).T) < 0.01


@pytest.mark.parametrize(("bits", "group"), LAYOUTS)
def test_native_products_of_small_integers_are_exact(linear, bits, group):
    weight = random_weight(bits, group, 48, 384)
    x = torch.randint(-127, 128, (11, 384), generator=torch.Generator().manual_seed(1)).float()
    x[:, ::32] = 127  # the scale of every group is then exactly 1
    assert error(linear(x, weight), x @ dequantize(weight).T) < 1e-5


@pytest.mark.parametrize(("bits", "group"), LAYOUTS)
def test_a_row_does_not_depend_on_how_many_there_are(linear, bits, group):
    weight = random_weight(bits, group, 100, 32 * 9)
    x = torch.randn(40, 32 * 9, generator=torch.Generator().manual_seed(2))
    together = linear(x, weight)
    for rows in (1, 2, 8, 9, 17):
        assert torch.equal(linear(x[:rows], weight), together[:rows])


def test_the_number_of_threads_may_change_between_calls(library, linear):
    """More threads than cores, fewer, more again: no job is lost or done twice."""
    weight = random_weight(4, 32, 300, 64)
    x = torch.randn(9, 64, generator=torch.Generator().manual_seed(4))
    expected = linear(x, weight)
    for threads in (4, 2, 5, 1, 3) * 40:
        library.set_threads(threads)
        assert torch.equal(linear(x, weight), expected)
        assert torch.equal(linear(x, weight), expected)
    library.set_threads(2)


def test_threads_do_not_change_a_bit(library, linear):
    weight = random_weight(4, 32, 200, 512)
    x = torch.randn(33, 512, generator=torch.Generator().manual_seed(3))
    results = []
    for threads in (1, 2, 3):
        library.set_threads(threads)
        results.append(linear(x, weight))
    library.set_threads(2)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("bits", [4, 8])
def test_zero_rows_give_exact_zeros(linear, bits):
    values = torch.randn(20, 128)
    values[7] = 0
    weight = quantize(values, bits, 32)
    x = torch.randn(9, 128)
    x[4] = 0
    for function in (linear, fallback.linear):
        out = function(x, weight)
        assert not out[:, 7].any()
        assert not out[4].any()
        assert out[3, 6] != 0


def test_native_results_have_the_dtype_of_their_inputs(linear):
    weight = random_weight(4, 32, 40, 128)
    x = torch.randn(3, 128).bfloat16()
    assert linear(x, weight).dtype == torch.bfloat16
    assert linear(x[:0], weight).shape == (0, 40)


# ---- torch


@pytest.mark.parametrize(("bits", "group"), LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_fallback_is_exact_in_any_number_of_pieces(monkeypatch, bits, group, shape):
    rows, channels, columns = shape
    weight = random_weight(bits, group, channels, columns)
    x = torch.randn(rows, columns)
    expected = x @ dequantize(weight).T
    for at_once in (1, 1 << 13, 1 << 20):
        monkeypatch.setattr(fallback, "_VALUES_AT_ONCE", {"cpu": at_once})
        assert error(fallback.linear(x, weight), expected) < 1e-6
    assert error(fallback.linear(x.bfloat16(), weight), expected) < 0.01


# ---- the choice


def test_the_best_instructions_of_this_cpu_are_chosen():
    try:
        best = native.load().instructions
    except ModelError as missing:
        pytest.skip(str(missing))
    chosen = choose_backend("cpu")
    assert chosen.name == f"native-{best}"
    assert error_of(chosen) < 0.01


@pytest.mark.parametrize("name", ["native-avx512", "native-avx2", "torch"])
def test_each_backend_of_a_cpu_can_be_asked_for(name):
    chosen = choose_backend(CPU, prefer=name)
    if chosen.name != name:
        pytest.skip(chosen.reason)
    assert "as asked" in chosen.reason
    assert error_of(chosen) < 0.01


def error_of(chosen):
    weight = random_weight(4, 32, 37, 96)
    x = torch.randn(3, 96)
    return error(chosen.linear(x, weight), x @ dequantize(weight).T)


def test_without_a_compiler_torch_answers_and_the_loss_is_told(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(native, "_default_cache", lambda: tmp_path)
    native.load.cache_clear()
    chosen = choose_backend("cpu")
    native.load.cache_clear()
    assert chosen.name == "torch"
    for words in ("times slower", "not native-avx512: ", "not native-avx2: ", "C++ compiler"):
        assert words in chosen.reason
    assert "\n" not in chosen.reason
    assert chosen.reason in caplog.text
    assert error_of(chosen) < 1e-6


def test_a_cpu_without_avx512_takes_avx2_and_nobody_is_warned(monkeypatch, caplog):
    features = native.cpu_features()
    if not native.FEATURES["avx2"] <= features:
        pytest.skip("needs AVX2")
    monkeypatch.setattr(native, "cpu_features", lambda: native.FEATURES["avx2"])
    native.load.cache_clear()
    chosen = choose_backend("cpu")
    native.load.cache_clear()
    assert chosen.name == "native-avx2"
    assert "not native-avx512: this CPU cannot run avx512 code" in chosen.reason
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_backend_with_wrong_results_is_passed_over(monkeypatch):
    monkeypatch.setattr(backend, "_native", lambda name: lambda x, w: fallback.linear(x, w) * 1.05)
    chosen = choose_backend("cpu")
    assert chosen.name == "torch"
    assert "wrong results in int4" in chosen.reason


def test_a_backend_that_raises_anything_is_passed_over(monkeypatch):
    def broken(x, weight):
        raise AttributeError("no kernel image\nis available")

    monkeypatch.setattr(backend, "_native", lambda name: broken)
    reason = choose_backend("cpu").reason
    assert "fails with AttributeError: no kernel image;" in reason


@pytest.mark.parametrize("name", ["triton", "cpm_kernels", "fast"])
def test_what_a_device_cannot_have_is_a_config_error(name):
    with pytest.raises(ConfigError, match="must be one of auto, native-avx512"):
        choose_backend("cpu", prefer=name)


@pytest.fixture
def cuda(monkeypatch):
    """A CUDA device as far as the choice goes; products stay on the CPU."""
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device=None: (8, 6))
    monkeypatch.setattr(backend, "self_test", lambda linear, device: None)
    return torch.device("cuda", 0)


def test_triton_is_taken_on_cuda_and_torch_where_it_is_absent(monkeypatch, cuda):
    fake = type(sys)("triton_linear")
    fake.linear = fallback.linear
    name = "glm_rag.engine.kernels.triton_linear"
    monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setattr("glm_rag.engine.kernels.triton_linear", fake, raising=False)
    assert choose_backend(cuda).name == "triton"
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device=None: (6, 1))
    assert "not triton: compute capability 6.1 is below 7.0" in choose_backend(cuda).reason
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device=None: (8, 6))
    monkeypatch.delattr("glm_rag.engine.kernels.triton_linear")
    monkeypatch.setitem(sys.modules, name, None)
    chosen = choose_backend(cuda)
    assert chosen.name == "torch"
    assert 'pip install "glm-rag[gpu]"' in chosen.reason


# ---- the checkpoint's own kernels

FATBIN = (0xBA55ED50).to_bytes(4, "little") + b"machine code" * 50
FAKE_BASE = """
import ctypes
class LazyKernelCModule:
    def __init__(self, code):
        assert code[4:] == b"machine code" * 50
class KernelFunction:
    def __init__(self, module, name):
        self.bits = int(name[3])
        assert name == f"int{self.bits}WeightExtractionHalf"
    def __call__(self, grid, block, shared, stream, params):
        import numpy as np
        weight, scale, out, n, m = [p.value for p in params]
        assert grid == (n, 1, 1) and block[0] % 32 == 0 and 32 <= block[0] <= 1024
        def array(address, kind, *shape):
            size = int(np.prod(shape)) * np.dtype(kind).itemsize
            return np.frombuffer((ctypes.c_char * size).from_address(address), kind).reshape(shape)
        q, s = array(weight, "int8", n, m), array(scale, "float16", n)
        if self.bits == 4:
            q = np.stack([q >> 4, (q << 4).astype("int8") >> 4], -1).reshape(n, -1)
        array(out, "float16", n, q.shape[1])[:] = q * s[:, None]
"""


@pytest.fixture
def checkpoint(tmp_path):
    """A folder with a `quantization.py` that would be noticed if anyone ran it."""
    text = "$" + base64.b64encode(bz2.compress(FATBIN)).decode()
    trap = f"open({str(tmp_path / 'ran')!r}, 'w')"
    source = f"{trap}\ntry:\n    quantization_code = {text!r}\nfinally: 1\n"
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / cpm.SOURCE).write_text(source)
    yield folder
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def fake_cpm(monkeypatch, tmp_path):
    """Writes a package `cpm_kernels` whose base module is the given source."""

    def write(source):
        folder = tmp_path / "site" / "cpm_kernels" / "kernels"
        folder.mkdir(parents=True)
        for package in (folder, folder.parent):
            (package / "__init__.py").write_text("")
        (folder / "base.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))

    yield write
    for name in [name for name in sys.modules if name.startswith("cpm_kernels")]:
        del sys.modules[name]


def test_the_official_kernels_are_only_tried_by_name(cuda, checkpoint, fake_cpm):
    fake_cpm(FAKE_BASE)
    assert choose_backend(cuda, checkpoint=checkpoint).name != "cpm_kernels"
    chosen = choose_backend(cuda, prefer="cpm_kernels", checkpoint=checkpoint)
    assert chosen.name == "cpm_kernels"


@pytest.mark.parametrize("bits", [4, 8])
def test_official_kernels_give_the_product_of_an_official_matrix(cuda, checkpoint, fake_cpm, bits):
    fake_cpm(FAKE_BASE)
    linear = cpm.make_linear(checkpoint, cuda)
    stored = torch.randint(-128, 128, (37, 96 * bits // 8)).to(torch.int8)
    scale = torch.rand(37).half()
    weight = from_official(stored, scale, bits)
    back = cpm.to_official(weight)
    assert torch.equal(back[0], stored)
    assert torch.equal(back[1], scale)
    x = torch.randn(3, 96)
    for _ in range(2):
        assert error(linear(x, weight), x @ dequantize(weight).T) < 1e-3


def test_matrices_with_a_scale_per_group_go_to_torch(cuda, checkpoint, fake_cpm):
    fake_cpm(FAKE_BASE)
    weight = random_weight(4, 32, 37, 96)
    x = torch.randn(3, 96)
    linear = cpm.make_linear(checkpoint, cuda)
    assert torch.equal(linear(x, weight), fallback.linear(x, weight))


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("raise RuntimeError('CUDA driver version is insufficient')", "driver version"),
        ("import os; os.abort()", "exit code -6"),
        ("import pkg_resources_absent", "pkg_resources_absent"),
    ],
)
def test_an_import_that_fails_in_any_way_is_a_reason(cuda, checkpoint, fake_cpm, base, words):
    fake_cpm(base)
    chosen = choose_backend(cuda, prefer="cpm_kernels", checkpoint=checkpoint)
    assert chosen.name != "cpm_kernels"
    assert "not cpm_kernels: cpm_kernels cannot be imported" in chosen.reason
    assert words in chosen.reason


def test_a_loader_that_fails_later_is_a_reason(cuda, checkpoint, fake_cpm):
    fake_cpm("class LazyKernelCModule:\n    pass\nclass KernelFunction:\n    pass\n")
    reason = choose_backend(cuda, prefer="cpm_kernels", checkpoint=checkpoint).reason
    assert "not cpm_kernels: cpm_kernels cannot load the kernels" in reason


def test_a_device_without_code_is_told_before_anything_is_read(monkeypatch, cuda, tmp_path):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device=None: (9, 0))
    reason = choose_backend(cuda, prefer="cpm_kernels", checkpoint=tmp_path).reason
    assert "no code for compute capability 9.0, only for 6.1, 6.2, 7.0" in reason
    assert "no checkpoint folder" in choose_backend(cuda, prefer="cpm_kernels").reason


@pytest.mark.parametrize(
    "text",
    [
        "x = 1",
        "quantization_code = 'not bzip2'",
        f"quantization_code = {base64.b64encode(bz2.compress(b'text')).decode()!r}",
        f"quantization_code = {base64.b64encode(bz2.compress(FATBIN)[:-9]).decode()!r}",
        "quantization_code = open('/etc/passwd').read()",
        "def broken(:",
    ],
)
def test_a_file_without_the_kernels_is_a_checkpoint_error(tmp_path, text):
    (tmp_path / cpm.SOURCE).write_text(text)
    with pytest.raises(CheckpointError, match="no kernels in"):
        cpm.read_fatbin(tmp_path / cpm.SOURCE)
    with pytest.raises(CheckpointError, match="no kernels in"):
        cpm.read_fatbin(tmp_path / "absent")


def test_official_int4_bytes_keep_the_even_column_high():
    values = torch.tensor([[1, -8] + [0] * 30]).to(torch.int8)
    packed, _ = cpm.to_official(pack(values, torch.ones(1, 1).half(), 4, 32))
    assert packed[0, 0] == (1 << 4 | 8)
