"""The first start: choose a language model and fetch it. Documents come next, on the chat."""

from __future__ import annotations

import logging

import streamlit as st

from glm_rag.errors import GlmRagError
from glm_rag.models.registry import MODELS, ModelSpec
from glm_rag_ui import backend, choices, failures, machine_table, render, shell
from glm_rag_ui.i18n import Translate
from glm_rag_ui.shell import Visit

log = logging.getLogger(__name__)

ABOUT = {
    "smollm2-135m": "about_smollm2",
    "chatglm2-6b-32k": "about_chatglm2_32k",
    "chatglm2-6b-32k-int4": "about_chatglm2_int4",
    "chatglm2-6b": "about_chatglm2",
}
SOURCES = {"hf": "Hugging Face", "modelscope": "ModelScope"}
STEPS = {"downloading": "pulling", "converting": "converting"}


def page(visit: Visit) -> None:
    """Draw the page."""
    t = visit.t
    name = render.file_name(visit.settings.model.name)
    st.html(render.panel(t("no_model"), t("no_model_text", name=choices.model_title(name))))
    here = backend.installed_models(visit.settings)
    with st.bottom:
        st.chat_input(t("ask_no_model"), disabled=True, key="question")
    names = [*here, *(known for known in MODELS if known not in here)]
    wanted = visit.settings.model.name
    if wanted in names and (not here or wanted != shell.plain_settings().model.name):
        st.session_state.setdefault("welcome-model", wanted)
    chosen = model_radio(names, here, t)
    if chosen in here:
        if st.button(t("use_button", name=choices.model_title(chosen)), type="primary"):
            use(visit, chosen)
        return
    fetch_panel(visit, MODELS[chosen])
    command = f"glm-rag model pull {chosen}"
    st.html(f'<p class="gr-foot">{t("no_model_shell")} <code>{render.escape(command)}</code></p>')


def model_radio(names: list[str], here: list[str], t: Translate) -> str:
    """The models to choose from, each with what it is for."""

    def caption(name: str) -> str:
        about = t(ABOUT[name]) if name in ABOUT else ""
        if name in here:
            return f"{about} {t('model_here')}".strip()
        return f"{about} {t('model_size', size=machine_table.size(MODELS[name].download_bytes))}"

    chosen: str = st.radio(
        t("set_model"),
        names,
        format_func=choices.labelled(names, choices.model_title).__getitem__,
        captions=[caption(name) for name in names],
        key="welcome-model",
        label_visibility="collapsed",
    )
    return chosen


def fetch_panel(visit: Visit, spec: ModelSpec) -> None:
    """The licence, where it comes from, and the button that fetches it."""
    t = visit.t
    accepted, source = True, "auto"
    if spec.license.needs_consent:
        with st.expander(t("model_license", name=spec.license.name), icon=":material/gavel:"):
            text = choices.reflowed(spec.license.text)
            st.html(render.plain(f"{text}\n\n{spec.license.url}"))
        accepted = st.checkbox(t("model_accept"), key=f"accept-{spec.license.name}")
    if spec.kind == "hub":
        source = st.segmented_control(
            t("model_from"),
            list(SOURCES),
            default="modelscope" if visit.language == "zh" and backend.has_modelscope() else "hf",
            required=True,
            format_func=SOURCES.__getitem__,
        )
    free = machine_table.size(backend.free_disk(visit.settings))
    label = t("pull_button", name=choices.model_title(spec.name))
    progress = st.container()  # above the button, which may stand at the lower end of a phone
    if st.button(label, type="primary", icon=":material/download:", disabled=not accepted):
        with progress:
            fetch(visit, spec, source)
    st.html(f'<p class="gr-foot">{t("model_free", size=free)}</p>')


def fetch(visit: Visit, spec: ModelSpec, source: str) -> None:
    """Fetch a model under a progress bar, then use it; an error leaves the button for a retry."""
    t = visit.t
    bar = st.progress(0.0, text=t("pulling"))
    try:
        if spec.license.needs_consent:
            backend.accept_license(visit.settings, spec.name)
        for step, done, total in backend.pull_model(visit.settings, spec.name, *_from(source)):
            words = t(STEPS.get(step, "pull_waiting"))
            bar.progress(min(done / total, 1.0) if total else 0.0, text=words)
    except Exception as error:
        if not isinstance(error, GlmRagError):
            log.exception("fetching %s broke off", spec.name)
        bar.empty()
        st.html(failures.notice(error, t, title="pull_failed"))
        st.html(f'<p class="gr-foot">{t("pull_again")}</p>')
        return
    use(visit, spec.name)


def _from(source: str) -> tuple[str, ...]:
    return () if source == "auto" else (source,)


def use(visit: Visit, name: str) -> None:
    """Answer with this model from now on, in this profile."""
    kept = visit.store.preferences(visit.profile).get("settings") or {}
    chosen = choices.with_choice(kept, shell.plain_settings(), "model.name", name)
    visit.store.set_preferences(visit.profile, {"settings": chosen or None})
    st.rerun()
