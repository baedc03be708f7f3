"""The server of the page: Streamlit behind the gate. `glm-rag ui` runs it with `streamlit run`."""

from __future__ import annotations

import sys
from pathlib import Path

from starlette.middleware import Middleware
from streamlit import config
from streamlit.starlette import App

from glm_rag.config import load_config
from glm_rag_ui.gate import Gate
from glm_rag_ui.session import parse_arguments

_ui = load_config(parse_arguments(sys.argv[1:]).config).ui

app = App(
    Path(__file__).with_name("app.py"),
    middleware=[Middleware(Gate, token=_ui.token, port=config.get_option("server.port"))],
)
