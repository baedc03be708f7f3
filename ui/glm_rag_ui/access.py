"""Whose page this is: the profile that the server's gate put into the browser's cookie."""

from __future__ import annotations

import streamlit as st

from glm_rag_ui.passes import PROFILE_COOKIE, is_profile, new_profile, tickets

__all__ = ["is_profile", "is_remembered", "moving_to", "new_profile", "profile"]


def profile() -> str:
    """The profile of this browser; without cookies, one that lives as long as this tab."""
    named = st.context.cookies.get(PROFILE_COOKIE)
    if is_profile(named):
        return named
    kept: str = st.session_state.setdefault("profile", new_profile())
    return kept


def is_remembered() -> bool:
    """Whether this browser keeps its profile when the tab is closed."""
    return is_profile(st.context.cookies.get(PROFILE_COOKIE))


def moving_to(other: str) -> str:
    """HTML whose script leads the browser to a place where it gets another profile.

    The place works once, for a minute and in this browser, so nobody can be led there by a link.
    """
    address = tickets.issue(other, profile())
    return f'<script>window.location.assign("{address}")</script>'
