"""Whose page this is: the profile that the server's gate put into the browser's cookie."""

from __future__ import annotations

import streamlit as st

from glm_rag_ui import gate


def profile() -> str:
    """The profile of this browser; without cookies, one that lives as long as this tab."""
    named = st.context.cookies.get(gate.PROFILE_COOKIE)
    if named is not None and gate.is_profile(named):
        return named
    kept: str = st.session_state.setdefault("profile", gate.new_profile())
    return kept


def is_remembered() -> bool:
    """Whether this browser keeps its profile when the tab is closed."""
    return gate.is_profile(st.context.cookies.get(gate.PROFILE_COOKIE))


def address_of(profile: str) -> str:
    """An address that puts another profile into this browser, once and within a minute."""
    return gate.tickets.issue(profile)
