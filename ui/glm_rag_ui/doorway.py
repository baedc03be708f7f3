"""The HTML that the gate of the server writes itself: the form for the token, the head. Pure."""

from __future__ import annotations

from html import escape
from urllib.parse import parse_qsl

from glm_rag_ui.i18n import choose_language, translator

# Streamlit keeps the reader's choice of light or dark apart for every address: this keeps it for
# all of them, before Streamlit reads it. And on a phone the side panel lies over the page: a
# choice in the menu closes it.
HEAD_SCRIPT = """
(() => {
  try {
    const ours = "glm-rag-theme", theirs = `stActiveTheme-${location.pathname}-v2`;
    const chosen = localStorage.getItem(ours);
    if (chosen) localStorage.setItem(theirs, chosen);
    addEventListener("pagehide", () => {
      const now = localStorage.getItem(theirs);
      if (now) localStorage.setItem(ours, now);
    });
  } catch {}
  addEventListener("click", (event) => {
    if (innerWidth > 768 || !event.target.closest?.(".st-key-menu a")) return;
    const close = document.querySelector('[data-testid="stSidebarCollapseButton"] button');
    setTimeout(() => close?.click(), 50);
  });
})();
"""

_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; line-height: 1.6;
  font-family: 'PingFang SC', 'Hiragino Sans GB', 'Microsoft YaHei', 'Noto Sans CJK SC',
  'WenQuanYi Micro Hei', system-ui, sans-serif;
  background: light-dark(#fff, #121716); color: light-dark(#1b2523, #e6edeb); }
main { width: min(24rem, 100vw - 3rem); padding-bottom: 12vh; }
h1 { margin: 0; font-size: 1.5rem; color: light-dark(#0b7a68, #4cc5ae); }
p { color: light-dark(#5c6a66, #9fb0ab); }
p.wrong { color: light-dark(#b3261e, #f2938c); }
input, button { box-sizing: border-box; width: 100%; padding: 0.65rem 0.85rem; font: inherit;
  border-radius: 0.6rem; border: 1px solid light-dark(#b9c5c1, #46534f); color: inherit;
  background: light-dark(#fff, #1c2422); }
button { margin-top: 0.75rem; border: 0; cursor: pointer; color: light-dark(#fff, #0d1513);
  background: light-dark(#0b7a68, #4cc5ae); }
:focus-visible { outline: 2px solid light-dark(#0b7a68, #4cc5ae); outline-offset: 2px; }
"""


def framed(page: bytes) -> bytes:
    """Streamlit's HTML with our name, and the theme that the reader chose."""
    head = f"<title>glm-rag</title>\n<script>{HEAD_SCRIPT}</script>".encode()
    return page.replace(b"<title>Streamlit</title>", head, 1)


def token_form(
    lang: str | None, accepted: str | None, *, action: str, target: str, wrong: bool
) -> str:
    """The page that asks for the token; it tells nothing of what is behind it.

    Args:
        lang: asked for in the address. accepted: the browser's `Accept-Language`.
        target: where to go with the right token.
    """
    language = choose_language(lang, accepted)
    t = translator(language)
    said = f'<p class="wrong" role="alert">{escape(t("token_wrong"))}</p>' if wrong else ""
    return f"""<!DOCTYPE html>
<html lang="{language}"><head><meta charset="utf-8"><title>glm-rag</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex"><style>{_STYLE}</style></head>
<body><main><h1>glm-rag</h1><p>{escape(t("token_ask"))}</p>{said}
<form method="post" action="{escape(action)}">
<input type="hidden" name="next" value="{escape(target)}">
<input type="password" name="token" aria-label="{escape(t("token"))}" \
placeholder="{escape(t("token"))}" autocomplete="current-password" autofocus required>
<button>{escape(t("token_open"))}</button></form></main></body></html>"""


def read_form(body: bytes) -> dict[str, str]:
    """The fields of a form as browsers send it."""
    return dict(parse_qsl(body.decode("utf-8", "replace")))


def safe_target(target: str) -> str:
    """`target` where it is an address of this page, else the first page."""
    own = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if own else "/"
