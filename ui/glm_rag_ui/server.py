"""The server of the page: Streamlit behind the gate. `glm-rag ui` runs it with `streamlit run`."""

from __future__ import annotations

import sys
from pathlib import Path

from starlette.middleware import Middleware
from streamlit import config
from streamlit.starlette import App

from glm_rag.config import load_config
from glm_rag_ui.gate import Gate
from glm_rag_ui.passes import kept_secret
from glm_rag_ui.session import parse_arguments

_settings = load_config(parse_arguments(sys.argv[1:]).config)
_token = _settings.ui.token
# Kept, so that a browser needs to show a token only once, also after the server was started again.
_secret = kept_secret(_settings.home / "page-secret") if _token else None

app = App(
    Path(__file__).with_name("app.py"),
    middleware=[
        Middleware(Gate, token=_token, port=config.get_option("server.port"), secret=_secret)
    ],
)
