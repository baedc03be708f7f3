"""A dialog that stays open until it is answered or dismissed.

Streamlit draws a dialog only in the run in which it is called; a progress bar that draws the page
anew would close it. So which one is open stands in the session.
"""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

_OPEN = "dialog"


def button(
    label: str,
    name: str,
    *,
    icon: str,
    about: str = "",
    disabled: bool = False,
    primary: bool = False,
) -> None:
    """A button that opens the dialog `name` about one thing."""
    st.button(
        label,
        icon=icon,
        disabled=disabled,
        type="primary" if primary else "secondary",
        on_click=_open,
        args=(name, about),
        key=f"open-{name}",
    )


def dialog(title: str, name: str, draw: Callable[[], None], *, about: str = "") -> None:
    """Draw the dialog `name` if it is open; `title` is Markdown, so never a foreign text.

    Asked about one thing, it never turns to another, should the first be gone meanwhile.
    """
    if st.session_state.get(_OPEN) == (name, about):
        st.dialog(title, on_dismiss=close)(draw)()


def close() -> None:
    """Nothing is asked any more."""
    st.session_state.pop(_OPEN, None)


def _open(name: str, about: str) -> None:
    st.session_state[_OPEN] = (name, about)
