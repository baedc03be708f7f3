"""`glm-rag model bench` measures what it says; no figure is asserted."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from glm_rag.cli import model as cli
from glm_rag.engine.engine import Engine
from glm_rag.engine.generate import prefill
from glm_rag.models import bench as measuring
from glm_rag.models.bench import BenchPlan, bench, filled_cache
from glm_rag.models.convert import convert_gguf
from glm_rag.models.loading import release_engines


@pytest.fixture(scope="module")
def tiny_folder(tiny_gguf, tmp_path_factory):
    return convert_gguf(tiny_gguf, tmp_path_factory.mktemp("bench") / "m", name="tiny")


@pytest.fixture(scope="module")
def engine(tiny_folder):
    return Engine.load(tiny_folder)


@pytest.fixture
def passes(engine, monkeypatch):
    """Lengths of new and of cached tokens of every forward pass."""
    seen = []
    read = type(engine.model).read_together

    def spy(model, token_ids, shares, **options):
        seen.extend((new, cache.num_tokens) for new, cache in shares)
        return read(model, token_ids, shares, **options)

    monkeypatch.setattr(type(engine.model), "read_together", spy)
    return seen


def test_every_size_is_measured_by_its_own_passes(engine, passes):
    plan = BenchPlan(prompts=(8, 20), contexts=(0, 30), decode_tokens=3, runs=2)
    report = bench(lambda: engine, plan)
    assert passes[1:5] == [(8, 0), (8, 0), (20, 0), (20, 0)]  # behind one warm-up pass
    assert passes[5:] == [(1, n) for n in (0, 1, 2, 3)] + [(1, n) for n in (30, 31, 32, 33)]
    assert [speed.tokens for speed in report.prefill] == [8, 20]
    assert [speed.tokens for speed in report.decode] == [0, 30]
    for speed in report.prefill:
        assert speed.tokens_per_second == pytest.approx(speed.tokens / speed.seconds)
    assert report.backend
    assert report.dtype == "float32"
    assert report.peak_rss_bytes >= report.rss_bytes > 0
    assert report.skipped == ()


def test_what_does_not_fit_the_window_is_skipped_and_said(engine, passes):
    window = engine.context_window
    plan = BenchPlan(prompts=(4, window + 1), contexts=(0, window), decode_tokens=2, runs=1)
    report = bench(lambda: engine, plan)
    assert [speed.tokens for speed in (*report.prefill, *report.decode)] == [4, 0]
    assert len(report.skipped) == 2
    assert all(str(window) in reason for reason in report.skipped)


def test_a_prompt_that_would_take_too_long_is_not_started(engine, passes):
    plan = BenchPlan(prompts=(4, 8), contexts=(), max_seconds=0.0, runs=1)
    report = bench(lambda: engine, plan)
    assert [speed.tokens for speed in report.prefill] == [4]
    assert "prefill 8: would take" in report.skipped[0]
    assert (8, 0) not in passes[1:]


def test_a_filled_cache_is_one_a_model_can_write_behind(engine):
    cache = filled_cache(engine, 40, room=2)
    assert cache.num_tokens == len(cache.token_ids) == 40
    allocated = cache.num_bytes
    logits = prefill(engine.model, [1], cache)
    assert torch.isfinite(logits).all()
    assert cache.num_bytes == allocated


def test_a_filled_cache_differs_from_column_to_column(engine, monkeypatch):
    monkeypatch.setattr(measuring, "_FILL_CHUNK", 16)
    cache = filled_cache(engine, 40, room=0)
    views = [cache.layer(layer) for layer in range(engine.config.num_layers)]
    stored = [part for view in views for part in (view.keys, view.values)]  # [1, G, T, D] each
    columns = torch.stack(stored).movedim(-2, 0).flatten(1)
    assert len(torch.unique(columns, dim=0)) == 40


def test_json_goes_to_stdout_and_progress_to_stderr(tiny_folder):
    release_engines()
    arguments = ["bench", str(tiny_folder), "--prompt", "9", "--prompt", "5", "--context", "3"]
    done = CliRunner().invoke(cli.app, [*arguments, "--threads", "2", "--json"])
    release_engines()
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert [speed["tokens"] for speed in report["prefill"]] == [5, 9]
    assert [speed["tokens"] for speed in report["decode"]] == [3]
    assert report["model"] == "tiny"
    assert report["threads"] == 2
    assert "loading" in done.stderr


def test_the_table_names_every_figure(tiny_folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    done = CliRunner().invoke(
        cli.app, ["bench", str(tiny_folder), "--quick", "--prompt", "5", "--context", "0"]
    )
    release_engines()
    for part in ("tiny", "torch, float32", "read 5", "write at 0", "memory", "peak"):
        assert part in done.stdout
