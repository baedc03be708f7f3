"""What was read before is not read again: by another process, and in a conversation."""

import json
import shutil
from dataclasses import replace
from importlib.resources import files

import pytest

import glm_rag
from glm_rag.config import load_config
from glm_rag.models.loading import release_engines

QUESTION = "How long is parental leave?"


@pytest.fixture
def cold(quickstarted, home):
    """The handbook in a data folder without any kept sequence."""
    shutil.copytree(quickstarted.home / "kb", home / "kb")
    (home / "models").symlink_to(quickstarted.home / "models", target_is_directory=True)
    release_engines()
    yield replace(quickstarted, home=home)
    release_engines()


def ask(cold, question=QUESTION, kb="handbook", history=None, **settings):
    config = load_config(overrides={"home": cold.home, **settings})
    return glm_rag.ask(question, kb=kb, config=config, history=history)


def warm(cold, *options, kb="handbook", budget="900MB"):
    done = cold.run("kb", "warm", kb, "--json", "--budget", budget, *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_passage_read_by_another_process_leaves_the_question_alone_to_read(cold):
    english = files("glm_rag.samples") / "handbook" / "handbook-en.md"
    assert cold.run("ingest", str(english), "--kb", "english").returncode == 0
    first = warm(cold, kb="english")
    with glm_rag.KnowledgeBase.open("english", home=cold.home) as kb:
        assert first["num_read"] == first["num_passages"] == kb.info().num_chunks
    assert first["bytes_used"] == first["bytes_needed"] <= 900e6
    again = warm(cold, kb="english")
    assert (again["num_read"], again["num_present"]) == (0, first["num_passages"])
    # A small collection gives little evidence; a loop would end without its counts.
    settings = {"retrieval.abstain": False, "packing.max_passages": 1, "generation.max_tokens": 8}
    answer = ask(cold, kb="english", **settings)
    assert answer.usage.cached_tokens > 0.9 * answer.usage.input_tokens
    without = ask(cold, kb="english", **settings, **{"cache.enabled": False})
    assert without.usage.cached_tokens == 0
    assert answer.text == without.text


def test_a_dry_run_predicts_and_writes_nothing(cold):
    report = warm(cold, "--dry-run", budget="100MB")
    assert report["num_read"] == report["bytes_used"] == 0
    assert report["num_tokens"] > 0
    assert report["seconds_left"] > 0
    assert not list((cold.home / "cache").rglob("*.safetensors"))


def test_broken_off_warming_goes_on_where_it_was(cold):
    first = warm(cold, budget="100MB")
    one, *_ = (cold.home / "cache").rglob("*.safetensors")
    one.unlink()
    again = warm(cold, budget="100MB")
    assert (again["num_read"], again["num_present"]) == (1, first["num_passages"] - 1)


def test_a_follow_up_reads_its_own_tokens_alone(cold):
    first = ask(cold)
    assert first.usage.cached_tokens == 0
    second = ask(cold, "And how many days of annual leave?", history=first)
    before = first.usage.input_tokens + first.usage.output_tokens
    assert second.usage.cached_tokens >= before - 1
    assert second.usage.input_tokens > before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--budget", "much"], ["much", "4GB"]),
        (["--budget", "9000GB"], ["cache.disk_mb"]),
        (["nothing"], ["nothing", "ingest"]),
    ],
)
def test_a_wrong_budget_or_name_is_one_clear_line(quickstarted, options, words):
    name = [] if options[0] == "nothing" else ["handbook"]
    done = quickstarted.run("kb", "warm", *name, *options)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert all(word in line for word in words)
