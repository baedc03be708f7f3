"""What was read before is not read again: by another process, and in a conversation."""

import json
import shutil
from dataclasses import replace

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


def ask(cold, question=QUESTION, **options):
    return glm_rag.ask(
        question, kb="handbook", config=load_config(overrides={"home": cold.home}), **options
    )


def warm(cold, *options, budget="600MB"):
    done = cold.run("kb", "warm", "handbook", "--json", "--budget", budget, *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_passage_read_by_another_process_leaves_the_question_alone_to_read(cold):
    first = warm(cold)
    assert first["num_read"] == first["num_passages"] > 5
    assert first["bytes_used"] == first["bytes_needed"] <= 600e6
    again = warm(cold)
    assert (again["num_read"], again["num_present"]) == (0, first["num_passages"])
    answer = ask(cold)
    assert answer.text == cold.answer["text"]
    assert answer.usage.cached_tokens > 0.9 * answer.usage.input_tokens


def test_a_dry_run_predicts_and_writes_nothing(cold):
    report = warm(cold, "--dry-run", budget="100MB")
    assert report["num_read"] == report["bytes_used"] == 0
    assert report["num_tokens"] > 0
    assert report["seconds_left"] > 0
    assert not list((cold.home / "cache").rglob("*.safetensors"))


def test_broken_off_warming_goes_on_where_it_was(cold):
    first = warm(cold, budget="100MB")
    files = list((cold.home / "cache").rglob("*.safetensors"))
    files[0].unlink()
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
