"""The switch for light and dark. Pure."""

from __future__ import annotations

from glm_rag_ui.i18n import Translate

# Streamlit names its themes so in the browser's storage, apart for every address; what the gate
# puts into the page's head (doorway.HEAD_SCRIPT) makes the choice count for all of them.
_NAMES = {"System": "theme_system", "Light": "theme_light", "Dark": "theme_dark"}

_SCRIPT = """
(() => {
  const key = `stActiveTheme-${location.pathname}-v2`, ours = "glm-rag-theme";
  const chosen = JSON.parse(localStorage.getItem(ours) || localStorage.getItem(key) || '"System"');
  for (const button of document.querySelectorAll(".gr-theme button")) {
    button.setAttribute("aria-pressed", String(button.value === chosen));
    button.onclick = () => {
      for (const name of Object.keys(localStorage))
        if (name.startsWith("stActiveTheme-")) localStorage.removeItem(name);
      localStorage.setItem(ours, JSON.stringify(button.value));
      location.reload();
    };
  }
})();
"""


def switch(t: Translate) -> str:
    """Three buttons, and the script that remembers the choice in the browser."""
    buttons = "".join(
        f'<button type="button" value="{name}">{t(key)}</button>' for name, key in _NAMES.items()
    )
    return (
        f'<p class="gr-label">{t("theme")}</p>'
        f'<div class="gr-theme" role="group" aria-label="{t("theme")}">{buttons}</div>'
        f"<script>{_SCRIPT}</script>"
    )
