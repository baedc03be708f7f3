"""Settings of a profile, and the state of the machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import streamlit as st

from glm_rag.errors import GlmRagError
from glm_rag_ui import access, backend, choices, failures, machine_table, render, shell, theme
from glm_rag_ui.choices import CHOICES, Choice, Group
from glm_rag_ui.i18n import Translate
from glm_rag_ui.shell import Visit

TABS = ("tab_model", "tab_retrieval", "tab_browser", "tab_machine")


def page(visit: Visit) -> None:
    """Draw the page."""
    t = visit.t
    st.html(f'<h2 class="gr-title">{t("nav_settings")}</h2>')
    names = [t(key) for key in TABS]
    # Keyed by language: a tab is remembered by its words.
    tabs = st.tabs(names, key=f"tabs-{visit.language}", on_change="rerun")
    drawn: tuple[Callable[[Visit], None], ...] = (answering, searching, browser, machine)
    for tab, draw in zip(tabs, drawn, strict=True):
        if tab.open is not False:
            with tab:
                draw(visit)


def answering(visit: Visit) -> None:
    """Which model answers, and how it chooses its words."""
    saved_line(visit)
    model_choice(visit)
    fields(visit, "model")
    fields(visit, "answers")
    reset_button(visit, "answers")


def searching(visit: Visit) -> None:
    """How passages are found, and how much evidence an answer needs."""
    saved_line(visit)
    threshold(visit)
    fields(visit, "retrieval")
    reset_button(visit, "retrieval")


def saved_line(visit: Visit) -> None:
    """What became of the last change."""
    error = st.session_state.pop("settings_error", None)
    if error is not None:
        st.html(failures.notice(error, visit.t, title="set_wrong"))
        st.toast(visit.t("set_wrong"), icon=":material/error:")  # seen further down, too
    else:
        st.html(f'<p class="gr-foot">{visit.t("set_saved")}</p>')


def model_choice(visit: Visit) -> None:
    """The models that are here, and those that can be fetched."""
    t, current = visit.t, visit.settings.model.name
    if server := choices.server(visit.settings):
        _explain(t("remote", address=render.escape(server)))
        return
    here = backend.installed_models(visit.settings)
    names = list(dict.fromkeys([current, *here, *backend.known_models()]))

    def label(name: str) -> str:
        title = choices.model_title(name)
        return f"{title} · {t('model_here')}" if name in here else title

    _settle("model.name", current)
    st.selectbox(
        t("set_model"),
        names,
        format_func=choices.labelled(names, label).__getitem__,
        key="set-model.name",
        on_change=_save,
        args=(visit, "model.name"),
    )
    _explain(t("set_model_help"))


def fields(visit: Visit, group: Group) -> None:
    """The widgets of one group."""
    for choice in CHOICES:
        if choice.group == group:
            field(visit, choice)
            _explain(visit.t(f"set_{choice.name}_help"))


def field(visit: Visit, choice: Choice) -> None:
    """The widget of one setting; a change is kept at once."""
    t, label = visit.t, visit.t(f"set_{choice.name}")
    value = choices.read(visit.settings, choice.key)
    kept = visit.store.preferences(visit.profile).get("settings") or {}
    # The name of a cross-encoder may be kept before it counts.
    _settle(choice.key, kept.get(choice.key, value) if choice.kind == "text" else value)
    common: dict[str, Any] = {
        "key": f"set-{choice.key}",
        "on_change": _save,
        "args": (visit, choice.key),
    }
    match choice.kind:
        case "one_of":
            show = partial(_option, t)
            st.segmented_control(label, choice.options, format_func=show, required=True, **common)
        case "share":
            least, most = min(choice.least, value), max(choice.most, value)
            st.slider(label, float(least), float(most), step=choice.step, **common)
        case "number" | "seed":
            known = choice.least if value is None else value
            least, most = min(choice.least, known), max(choice.most, known)
            st.number_input(
                label, int(least), int(most), value=None, step=int(choice.step), **common
            )
        case "switch":
            st.toggle(label, **common)
        case "text":
            st.text_input(label, max_chars=500, **common)


def _option(t: Translate, option: str) -> str:
    return t(f"opt_{option.replace('-', '_')}")


def threshold(visit: Visit) -> None:
    """How much evidence an answer needs, for the chosen knowledge base."""
    t, reach = visit.t, choices.THRESHOLD_REACH
    value = visit.settings.retrieval.threshold
    _settle(choices.THRESHOLD, min(max(value, -reach), reach))
    st.slider(
        t("set_threshold", kb=choices.in_label(visit.kb)),
        -reach,
        reach,
        step=0.25,
        key=f"set-{choices.THRESHOLD}",
        on_change=_save_threshold,
        args=(visit,),
        disabled=not visit.settings.retrieval.abstain,
    )
    ends = (t("set_generous"), t("set_default"), t("set_strict"))
    st.html(f'<p class="gr-ends">{"".join(f"<span>{end}</span>" for end in ends)}</p>')
    _explain(t("set_threshold_help"))


def reset_button(visit: Visit, where: str) -> None:
    """Back to the settings of the server, for all tabs."""
    kept = visit.store.preferences(visit.profile)
    changed = len(kept.get("settings") or {}) + len(kept.get("thresholds") or {})
    if changed:
        st.html(f'<p class="gr-foot">{visit.t("set_changed", n=changed)}</p>')
    st.button(
        visit.t("set_reset"),
        key=f"reset-{where}",
        icon=":material/restart_alt:",
        disabled=not changed,
        on_click=visit.store.set_preferences,
        args=(visit.profile, {"settings": None, "thresholds": None}),
    )


def _settle(key: str, value: object) -> None:
    # A change was kept or refused before this run: the widget shows what counts.
    st.session_state[f"set-{key}"] = value


def _explain(text: str) -> None:
    st.html(f'<p class="gr-explain">{text}</p>')


def _save(visit: Visit, key: str) -> None:
    value = st.session_state[f"set-{key}"]
    if value is None and key != choices.SEED:  # an emptied field: what was there comes back
        return
    kept = visit.store.preferences(visit.profile).get("settings") or {}
    chosen = choices.with_choice(kept, shell.plain_settings(), key, value)
    if _usable(visit, chosen):
        visit.store.set_preferences(visit.profile, {"settings": chosen or None})


def _save_threshold(visit: Visit) -> None:
    value = st.session_state[f"set-{choices.THRESHOLD}"]
    kept = visit.store.preferences(visit.profile).get("thresholds") or {}
    others = {name: kept[name] for name in kept if name != visit.kb}
    if value != shell.plain_settings().retrieval.threshold:
        others[visit.kb] = value
    visit.store.set_preferences(visit.profile, {"thresholds": others or None})


def _usable(visit: Visit, chosen: dict[str, Any]) -> bool:
    try:
        base = shell.plain_settings()
        backend.check_settings(shell.plain_settings(choices.in_effect(chosen, base)))
    except GlmRagError as error:
        st.session_state["settings_error"] = error
        return False
    return True


# ---------------------------------------------------------------- this browser


def browser(visit: Visit) -> None:
    """Light or dark, and whose conversations these are."""
    t = visit.t
    st.html(theme.switch(t), unsafe_allow_javascript=True)
    st.html(f'<h3 class="gr-title">{t("profile")}</h3>')
    if not access.is_remembered():
        st.html(render.notice("warn", t("profile_lost")))
        return
    st.html(f'<p class="gr-text">{t("profile_text")}</p>')
    with st.expander(t("profile_show"), icon=":material/key:"):
        st.code(visit.profile, language=None)
    with st.form("profile", border=False):
        code = st.text_input(t("profile_enter"), help=t("profile_enter_help"), max_chars=64)
        if st.form_submit_button(t("profile_use"), icon=":material/login:"):
            enter(code, t)
    if st.button(
        t("profile_new"), icon=":material/person_add:", help=t("profile_new_help"), type="tertiary"
    ):
        st.html(access.moving_to(access.new_profile()), unsafe_allow_javascript=True)


def enter(code: str, t: Translate) -> None:
    """Make another browser's profile this one's."""
    wanted = code.strip().lower()
    if access.is_profile(wanted):
        st.html(access.moving_to(wanted), unsafe_allow_javascript=True)
    else:
        st.html(render.notice("error", t("profile_wrong")))


# ---------------------------------------------------------------- this machine


def machine(visit: Visit) -> None:
    """What glm-rag uses of the machine, and what is wrong with it."""
    t = visit.t
    try:
        with st.spinner(t("mac_looking")):
            found, findings = backend.machine(visit.settings)
    except GlmRagError as error:
        st.html(failures.notice(error, t))
        return
    st.html(machine_table.table(found, visit.settings, t))
    st.html(machine_table.findings(findings, t))
    st.button(t("mac_again"), icon=":material/refresh:")
