"""Whose page this is: the profile of a browser, as the server's gate put it into a cookie."""

from __future__ import annotations

import re
import secrets

import streamlit as st

PROFILE_COOKIE = "glm_rag_profile"


def new_profile() -> str:
    """A profile that nobody can guess: 128 random bits."""
    return secrets.token_hex(16)


def is_profile(text: str | None) -> bool:
    """Whether `text` can be a profile's code."""
    return bool(re.fullmatch("[0-9a-f]{32}", text or ""))


def profile() -> str:
    """The profile of this browser; without cookies, one that lives as long as this tab."""
    named = st.context.cookies.get(PROFILE_COOKIE)
    if named is not None and is_profile(named):
        return named
    kept: str = st.session_state.setdefault("profile", new_profile())
    return kept
