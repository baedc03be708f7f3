"""Settings, the first start and the menu, in process, over a scripted backend."""

from types import SimpleNamespace

import pytest
from test_page import button, page, shown

import ui_fakes
from glm_rag.conversations import ConversationStore
from glm_rag.diagnosis import Finding
from glm_rag.errors import ConfigError, MissingDependencyError, ModelError
from glm_rag.machine import look
from glm_rag_ui import access, passes, session, shell
from glm_rag_ui import backend as seam

PROFILE = "0123456789abcdef" * 2


@pytest.fixture
def visitor(backend, monkeypatch, home):
    """A browser with a profile; what is remembered of it."""
    monkeypatch.setattr(access, "profile", lambda: PROFILE)
    monkeypatch.setattr(access, "is_remembered", lambda: True)
    monkeypatch.setattr(seam, "installed_models", lambda _settings: ["my-model"])
    return lambda: ConversationStore(home / "conversations.sqlite").preferences(PROFILE)


def settings_page(**query):
    return go(page(**query), "settings")


def go(test, view):
    """Another page, as the menu leads there."""
    test._page_hash = test.session_state["pages"][view]._script_hash
    return test.run()


def widget(test, key):
    kinds = ("slider", "number_input", "toggle", "text_input", "selectbox", "button_group", "radio")
    return next(
        item
        for kind in kinds
        for item in (getattr(test, kind) if hasattr(test, kind) else test.get(kind))
        if item.key == key
    )


def test_a_change_is_kept_and_counts(visitor):
    test = settings_page()
    widget(test, "set-generation.temperature").set_value(0.5).run()
    assert visitor()["settings"] == {"generation.temperature": 0.5}
    again = settings_page()
    assert widget(again, "set-generation.temperature").value == 0.5
    assert "1 setting changed" in shown(again)


def test_a_change_back_to_the_default_is_not_kept(visitor):
    test = settings_page()
    widget(test, "set-generation.temperature").set_value(0.5).run()
    widget(test, "set-generation.temperature").set_value(0.0).run()
    assert "settings" not in visitor()


def test_a_model_at_a_path_is_told_apart_from_the_one_of_its_name(visitor, monkeypatch):
    monkeypatch.setenv("GLM_RAG_MODEL__NAME", "/models/smollm2-135m")
    options = widget(settings_page(), "set-model.name").options
    assert "/models/smollm2-135m" in options
    assert len(set(options)) == len(options)


def test_an_emptied_seed_is_chance_and_an_emptied_number_what_it_was(visitor):
    test = settings_page()
    widget(test, "set-generation.seed").set_value(5).run()
    widget(test, "set-generation.max_tokens").set_value(640).run()
    widget(test, "set-generation.seed").set_value(None).run()
    widget(test, "set-generation.max_tokens").set_value(None).run()
    assert visitor()["settings"] == {"generation.max_tokens": 640}
    assert widget(test, "set-generation.max_tokens").value == 640
    assert widget(test, "set-generation.seed").value is None


def test_settings_of_the_server_beyond_what_the_page_offers_are_shown(visitor, monkeypatch):
    values = {"generation.max_tokens": 8, "generation.top_p": 0.01, "generation.temperature": 3.0}
    for key, value in values.items():
        monkeypatch.setenv(f"GLM_RAG_{key.replace('.', '__').upper()}", str(value))
    test = settings_page()
    assert not test.exception
    assert {key: widget(test, f"set-{key}").value for key in values} == values


def test_a_model_can_be_chosen(visitor):
    test = settings_page()
    widget(test, "set-model.name").set_value("my-model").run()
    assert visitor()["settings"] == {"model.name": "my-model"}


def test_what_does_not_go_together_is_one_line_and_changes_nothing(visitor, monkeypatch):
    def refuse(_settings):
        raise ConfigError("the model holds int4 weights: set quantize to auto")

    test = settings_page()
    monkeypatch.setattr(seam, "check_settings", refuse)
    widget(test, "set-generation.max_tokens").set_value(640).run()
    html = shown(test)
    assert "nothing was changed" in html
    assert "holds int4 weights" in html
    assert widget(test, "set-generation.max_tokens").value == 512
    assert "settings" not in visitor()
    assert "nothing was changed" not in shown(test.run())


def test_reset_brings_the_defaults_back(visitor):
    test = settings_page()
    widget(test, "set-generation.temperature").set_value(0.5).run()
    button(test, "Reset to defaults").click()
    test.run()
    assert widget(test, "set-generation.temperature").value == 0.0
    assert "settings" not in visitor()


def test_a_cross_encoder_is_named_first_and_chosen_then(visitor):
    test = tab(settings_page(), "Search and evidence")
    widget(test, "set-retrieval.rerank").set_value("cross-encoder").run()
    assert "nothing was changed" in shown(test)
    widget(test, "set-retrieval.rerank_model").set_value("my-encoder").run()
    assert widget(test, "set-retrieval.rerank_model").value == "my-encoder"
    widget(test, "set-retrieval.rerank").set_value("cross-encoder").run()
    assert "nothing was changed" not in shown(test)
    assert visitor()["settings"] == {
        "retrieval.rerank": "cross-encoder",
        "retrieval.rerank_model": "my-encoder",
    }


def tab(test, name):
    test.session_state["tabs-en"] = name
    return test.run()


def test_evidence_is_set_for_the_chosen_knowledge_base(visitor, backend):
    backend.bases["law"] = ui_fakes.FakeKnowledgeBase([ui_fakes.document_info("a.txt")])
    test = tab(settings_page(kb="law"), "Search and evidence")
    widget(test, "set-retrieval.threshold").set_value(1.5).run()
    assert visitor()["thresholds"] == {"law": 1.5}
    other = tab(settings_page(kb="handbook"), "Search and evidence")
    assert widget(other, "set-retrieval.threshold").value == 0.0


def test_always_answering_needs_no_threshold(visitor):
    test = tab(settings_page(), "Search and evidence")
    widget(test, "set-retrieval.abstain").set_value(False).run()
    assert visitor()["settings"] == {"retrieval.abstain": False}
    assert widget(test, "set-retrieval.threshold").disabled


def test_the_machine_tells_what_is_wrong(visitor, monkeypatch):
    finding = Finding("docx", "warning", "python-docx is not installed")
    monkeypatch.setattr(seam, "machine", lambda settings: (look(settings), [finding]))
    html = shown(tab(settings_page(), "This machine"))
    assert "used by glm-rag" in html
    assert "python-docx is not installed" in html


def test_a_machine_that_cannot_be_looked_at_is_one_line(visitor, monkeypatch):
    def fail(_settings):
        raise MissingDependencyError.for_extra("torch", "engine")

    monkeypatch.setattr(seam, "machine", fail)
    assert "glm-rag[engine]" in shown(tab(settings_page(), "This machine"))


def test_a_wrong_code_of_a_profile_is_told(visitor):
    test = tab(settings_page(), "This browser")
    test.text_input[0].set_value("not a code")
    button(test, "Use it here").click()
    test.run()
    assert "This is no code" in shown(test)
    assert not passes.tickets.open


def test_the_code_of_another_browser_leads_to_its_profile(visitor):
    other = "f" * 32
    test = tab(settings_page(), "This browser")
    test.text_input[0].set_value(f" {other.upper()} ")
    button(test, "Use it here").click()
    html = shown(test.run())
    (name,) = passes.tickets.open
    assert f'window.location.assign("{passes.PROFILE_PATH}{name}")' in html
    assert passes.tickets.redeem(name, PROFILE) == other


def test_a_profile_that_is_not_kept_says_so(visitor, monkeypatch):
    monkeypatch.setattr(access, "is_remembered", lambda: False)
    html = shown(tab(settings_page(), "This browser"))
    assert "keeps no cookies" in html


# ---------------------------------------------------------------- the menu


def test_language_and_knowledge_base_are_remembered(visitor, backend):
    backend.bases["law"] = ui_fakes.FakeKnowledgeBase([ui_fakes.document_info("a.txt")])
    test = page()
    widget(test, "kb").set_value("law").run()
    widget(test, "language").set_value("zh").run()
    assert {name: visitor()[name] for name in ("kb", "language")} == {"kb": "law", "language": "zh"}
    again = page()
    assert again.selectbox[0].value == "law"
    assert "知识库" in again.selectbox[0].label


def test_the_address_beats_what_is_remembered(visitor, backend):
    backend.bases["law"] = ui_fakes.FakeKnowledgeBase([ui_fakes.document_info("a.txt")])
    page(kb="handbook")
    widget(page(), "kb").set_value("law").run()
    assert page(kb="handbook", lang="zh").selectbox[0].value == "handbook"


def test_another_tab_of_the_profile_does_not_change_this_one(visitor, backend):
    backend.bases["law"] = ui_fakes.FakeKnowledgeBase([ui_fakes.document_info("a.txt")])
    here, there = page(), page()
    widget(there, "kb").set_value("law").run()
    assert here.run().selectbox[0].value == "handbook"


@pytest.mark.parametrize("view", ["chat", "knowledge", "retrieval", "settings", "document"])
def test_every_page_opens_in_both_languages(visitor, view):
    for lang in ("zh", "en"):
        assert shown(go(page(lang=lang), view))


def test_wrong_settings_are_one_line(visitor, home):
    (home / "config.yaml").write_text("modle: {}\n")
    test = page(lang="zh")
    assert "did you mean `model`" in shown(test)
    assert "设置有误" in shown(test)


# ---------------------------------------------------------------- the first start


@pytest.fixture
def fresh(visitor, backend, monkeypatch):
    """No model on the machine."""
    backend.model_present = False
    monkeypatch.setattr(seam, "installed_models", lambda _settings: [])
    return backend


def test_the_first_start_offers_every_model_and_fetches_one(fresh, visitor):
    test = page()
    radio = widget(test, "welcome-model")
    assert radio.options == [
        "SmolLM2-135M",
        "ChatGLM2-6B-32K",
        "ChatGLM2-6B-32K-INT4",
        "ChatGLM2-6B",
    ]
    button(test, "Fetch SmolLM2-135M").click()
    test.run()
    assert fresh.model_present
    assert not test.chat_input[0].disabled
    assert "settings" not in visitor()  # it is the default


def test_the_model_that_is_wanted_is_offered_first(fresh, monkeypatch):
    monkeypatch.setenv("GLM_RAG_MODEL__NAME", "chatglm2-6b-32k-int4")
    assert widget(page(), "welcome-model").value == "chatglm2-6b-32k-int4"


def test_a_restricted_licence_wants_a_yes_first(fresh, visitor, monkeypatch):
    accepted, pulled = [], []

    def pull(_settings, name, source="auto"):
        pulled.append((name, source))
        fresh.model_present = True
        yield "downloading", 1, 2

    monkeypatch.setattr(seam, "pull_model", pull)
    monkeypatch.setattr(seam, "accept_license", lambda _settings, name: accepted.append(name))
    monkeypatch.setattr(seam, "has_modelscope", lambda: True)
    test = page(lang="zh")
    widget(test, "welcome-model").set_value("chatglm2-6b-32k").run()
    assert button(test, "下载 ChatGLM2-6B-32K").disabled
    test.checkbox[0].check().run()
    button(test, "下载 ChatGLM2-6B-32K").click()
    test.run()
    assert accepted == ["chatglm2-6b-32k"]
    assert pulled == [("chatglm2-6b-32k", "modelscope")]
    assert visitor()["settings"] == {"model.name": "chatglm2-6b-32k"}


@pytest.mark.parametrize("error", [ModelError("no network: try again"), RuntimeError("boom")])
def test_a_failed_fetch_is_one_line_and_can_be_tried_again(fresh, monkeypatch, error):
    def fail(_settings, _name):
        yield "downloading", 1, 100
        raise error

    monkeypatch.setattr(seam, "pull_model", fail)
    test = page()
    button(test, "Fetch SmolLM2-135M").click()
    html = shown(test.run())
    assert ("no network: try again" if isinstance(error, ModelError) else "RuntimeError") in html
    assert "The model could not be fetched." in html
    assert "try again to go on from there" in html
    monkeypatch.setattr(seam, "pull_model", fresh.pull_model)
    button(test, "Fetch SmolLM2-135M").click()
    test.run()
    assert not test.chat_input[0].disabled


def test_a_model_that_is_here_is_used_without_fetching(fresh, visitor, monkeypatch):
    monkeypatch.setattr(seam, "installed_models", lambda _settings: ["my-model"])
    test = page()
    button(test, "Use my-model").click()
    test.run()
    assert visitor()["settings"] == {"model.name": "my-model"}


# ---------------------------------------------------------------- shared


def test_one_line_for_each_loaded_model(backend):
    first = session.settings(None)
    other = session.settings(None, {"model.name": "other"})
    hotter = session.settings(None, {"generation.temperature": 0.5})
    assert session.waiting_line(first) is session.waiting_line(hotter)
    assert session.waiting_line(first) is not session.waiting_line(other)
    assert session.waiting_line(first).places == first.server.max_running == 8


def test_one_line_for_a_server_whatever_model_is_chosen_here(backend):
    remote = {"llm.backend": "openai", "llm.base_url": "http://127.0.0.1:8000/v1"}
    first = session.settings(None, remote)
    other = session.settings(None, {**remote, "model.name": "other"})
    assert session.waiting_line(first) is session.waiting_line(other)
    assert session.waiting_line(first) is not session.waiting_line(session.settings(None))


def test_a_script_without_a_server_counts_as_connected():
    assert session.is_connected()


@pytest.mark.parametrize("there", [True, False])
def test_a_browser_is_there_as_long_as_its_session_is_active(monkeypatch, there):
    runtime = SimpleNamespace(is_active_session=lambda name: there and name == "s1")
    monkeypatch.setattr(session.st.runtime, "exists", lambda: True)
    monkeypatch.setattr(session.st.runtime, "get_instance", lambda: runtime)
    context = SimpleNamespace(session_id="s1")
    monkeypatch.setattr(session, "get_script_run_ctx", lambda **_options: context)
    assert session.is_connected() is there


def test_links_keep_language_and_knowledge_base(visitor, monkeypatch):
    kept = {"language": "zh", "kb": "a b&c"}
    monkeypatch.setattr(shell.st, "session_state", kept)
    assert shell.link("document", source="x y") == "document?lang=zh&kb=a+b%26c&source=x+y"
    assert shell.link("chat") == "./?lang=zh&kb=a+b%26c"


def test_with_a_model_at_a_server_the_page_says_where_questions_go(visitor, monkeypatch):
    monkeypatch.setenv("GLM_RAG_LLM__BACKEND", "openai")
    monkeypatch.setenv("GLM_RAG_LLM__BASE_URL", "http://llm.internal:8000/v1")
    monkeypatch.setenv("GLM_RAG_LLM__MODEL", "big")
    chat = shown(page())
    assert "big" in chat
    assert "llm.internal:8000" in chat
    assert "Everything runs on this computer" not in chat
    test = settings_page()
    assert "llm.internal:8000" in shown(test)
    assert all(box.key != "set-model.name" for box in test.selectbox)
