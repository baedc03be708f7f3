"""What a profile keeps of the settings, and how it is shown."""

import json
from types import SimpleNamespace

import pytest

from glm_rag.config import load_config
from glm_rag.diagnosis import Finding
from glm_rag.errors import ConfigError, GlmRagError
from glm_rag.machine import Machine
from glm_rag.settings import Settings
from glm_rag_ui import access, backend, choices, machine_table, passes, session
from glm_rag_ui.choices import CHOICES
from glm_rag_ui.i18n import TEXTS, translator

BASE = Settings(home="/data")


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.key)
def test_every_choice_is_a_setting_with_words_and_a_default_in_its_bounds(choice):
    value = choices.read(BASE, choice.key)
    assert f"set_{choice.name}" in TEXTS
    assert f"set_{choice.name}_help" in TEXTS
    if choice.kind == "one_of":
        assert value in choice.options
        assert {f"opt_{option.replace('-', '_')}" for option in choice.options} <= set(TEXTS)
        for option in choice.options:
            load_config(None, overrides={choice.key: option})
    elif choice.kind in {"share", "number"}:
        assert choice.least <= value <= choice.most
        for bound in (choice.least, choice.most):
            number = bound if choice.kind == "share" else int(bound)
            load_config(None, overrides={choice.key: number})


def test_only_what_differs_is_kept():
    kept = choices.with_choice({}, BASE, "retrieval.k", 3)
    assert kept == {"retrieval.k": 3}
    kept = choices.with_choice(kept, BASE, "generation.seed", 7)
    assert choices.with_choice(kept, BASE, "retrieval.k", BASE.retrieval.k) == {
        "generation.seed": 7
    }


def test_a_threshold_counts_for_its_knowledge_base_only(home):
    kept = {"settings": {"retrieval.k": 3}, "thresholds": {"law": 1.5}}
    law = session.settings(None, session.overrides(kept, "law", BASE))
    other = session.settings(None, session.overrides(kept, "other", BASE))
    assert (law.retrieval.threshold, law.retrieval.k) == (1.5, 3)
    assert other.retrieval.threshold == load_config().retrieval.threshold


def test_the_name_of_a_cross_encoder_counts_only_with_it():
    name = {choices.RERANK_MODEL: "my-encoder"}
    assert choices.in_effect(name, BASE) == {choices.RERANK_MODEL: ""}
    both = {**name, "retrieval.rerank": "cross-encoder"}
    assert choices.in_effect(both, BASE) == both
    server = load_config(None, overrides=both)
    assert choices.in_effect({"retrieval.rerank": "none"}, server)[choices.RERANK_MODEL] == ""
    assert choices.in_effect({}, server) == {}


@pytest.mark.parametrize(
    "chosen",
    [
        {"retrieval.rerank": "cross-encoder"},
        {choices.RERANK_MODEL: "my-encoder"},
    ],
)
def test_what_does_not_go_together_is_found_before_it_is_kept(home, chosen):
    with pytest.raises(GlmRagError):
        backend.check_settings(load_config(None, overrides=chosen))


def test_a_model_that_is_not_here_yet_may_be_chosen(home):
    backend.check_settings(load_config(None, overrides={"model.name": "chatglm2-6b-32k"}))


def test_weights_cannot_be_rounded_twice(home, smollm2):
    folder = home / "models" / "mine"
    folder.mkdir(parents=True)
    config = json.loads((smollm2 / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_bit": 4}))
    mine = {"model.name": "mine", "model.quantize": "int8"}
    with pytest.raises(ConfigError, match="quantize"):
        backend.check_settings(load_config(None, overrides=mine))


def test_kept_choices_that_cannot_be_used_any_more_do_not_close_the_page(home):
    assert session.settings(None, {"retrieval.kk": 3}) == load_config()
    assert session.settings(None, {"retrieval.k": -3}) == load_config()


def test_text_in_a_label_is_only_text():
    label = choices.in_label("![x](http://evil/p.png) :red[a] $x$ <b>")
    assert "\\!\\[x\\]\\(http\\://evil/p\\.png\\)" in label
    assert "\\:red\\[a\\] \\$x\\$ \\<b\\>" in label


def test_models_are_called_as_people_write_them():
    assert choices.model_title("smollm2-135m") == "SmolLM2-135M"
    assert choices.model_title("chatglm2-6b-32k") == "ChatGLM2-6B-32K"
    assert choices.model_title("/models/smollm2-135m") == "/models/smollm2-135m"


def test_no_two_names_share_a_label():
    assert choices.labelled("aAb", str.upper) == {"a": "A", "A": "A (2)", "b": "B"}


def test_hard_line_breaks_do_not_show_but_points_do():
    assert choices.reflowed("In short\n(x):\n  - You may\n    use it.\n  - No") == (
        "In short (x):\n  - You may use it.\n  - No"
    )


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (None, "?"),
        (0, "0 B"),
        (999_400, "999 KB"),
        (1_000_000, "1 MB"),
        (12_490_000_000, "12.5 GB"),
    ],
)
def test_sizes_are_for_people(number, shown):
    assert machine_table.size(number) == shown


def machine(**changes):
    values = {
        "process_bytes": 10**9,
        "free_bytes": 2 * 10**9,
        "threads": 2,
        "cores": 4,
        "device": "cpu",
        "backend": "native: <fast>",
        "models": (),
        "cache_bytes": 5 * 10**6,
        "cache_files": 0,
        "disk_bytes": 3 * 10**9,
        "versions": {"glm-rag": "0.1"},
    }
    return Machine(**{**values, **changes})


def test_the_state_of_the_machine_is_text():
    html = machine_table.table(machine(), BASE, translator("en"))
    assert "1.0 GB used by glm-rag, 2.0 GB free" in html
    assert "native: &lt;fast&gt;" in html
    assert "5 MB of 1.0 GB in memory" in html
    unknown = machine_table.table(machine(process_bytes=None), BASE, translator("zh"))
    assert "glm-rag 占用 ?" in unknown


def test_only_what_is_wrong_is_told():
    t = translator("en")
    fine = [Finding("faiss", "ok", "there")]
    assert "Everything is in order" in machine_table.findings(fine, t)
    wrong = machine_table.findings([*fine, Finding("docx", "warning", "pip install")], t)
    assert "pip install" in wrong
    assert "there" not in wrong


@pytest.fixture
def visitor(monkeypatch):
    """The page's view of a browser: its cookies."""
    cookies = {}
    page = SimpleNamespace(context=SimpleNamespace(cookies=cookies), session_state={})
    monkeypatch.setattr(access, "st", page)
    return cookies


def test_the_cookie_names_the_profile(visitor):
    visitor[passes.PROFILE_COOKIE] = "0123456789abcdef" * 2
    assert access.profile() == "0123456789abcdef" * 2
    assert access.is_remembered()


@pytest.mark.parametrize("cookie", [None, "", "../x", "0" * 31, "G" * 32])
def test_without_a_valid_cookie_a_tab_has_a_profile_of_its_own(visitor, cookie):
    if cookie is not None:
        visitor[passes.PROFILE_COOKIE] = cookie
    profile = access.profile()
    assert passes.is_profile(profile)
    assert access.profile() == profile
    assert not access.is_remembered()


def behind_a_server(**changes):
    values = {"backend": "openai", "base_url": "http://ann:secret@llm.internal:8000/v1"}
    return load_config(overrides={f"llm.{k}": v for k, v in {**values, **changes}.items()})


def test_the_page_names_the_server_that_answers_without_its_password():
    assert choices.server(load_config()) == ""
    assert choices.server(behind_a_server()) == "llm.internal:8000"
    assert choices.model_name(behind_a_server(model="big")) == "big"
    assert choices.model_name(behind_a_server()) == load_config().model.name


def test_a_model_at_a_server_need_not_be_on_this_machine():
    assert not backend.has_model(load_config())
    assert backend.has_model(behind_a_server())
    backend.check_settings(behind_a_server(model="big"))
    assert backend.reads(behind_a_server(model="big"), "育儿假有多长?")
