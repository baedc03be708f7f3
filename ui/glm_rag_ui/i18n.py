"""The language of the page: lookups into `words`."""

from __future__ import annotations

from collections.abc import Callable

from glm_rag.types import Language
from glm_rag_ui.words import TEXTS

Translate = Callable[..., str]

LANGUAGE_NAMES: dict[Language, str] = {"zh": "中文", "en": "EN"}


def translator(language: Language) -> Translate:
    """A function from a key and arguments to a text in `language`.

    Raises:
        KeyError: from the returned function, when the key is unknown.
    """
    column = 1 if language == "zh" else 0

    def translate(key: str, **values: object) -> str:
        text = TEXTS[key][column]
        if "|" in text:
            one, many = text.split("|")
            text = one if values.get("n") == 1 else many
        return text.format(**{name: _number(value) for name, value in values.items()})

    return translate


def _number(value: object) -> object:
    return f"{value:,}" if isinstance(value, int) else value


def choose_language(wanted: str | None, locale: str | None) -> Language:
    """The language asked for in the address, else the browser's: Chinese if it says so."""
    if wanted in LANGUAGE_NAMES:
        return "zh" if wanted == "zh" else "en"
    return "zh" if (locale or "").lower().startswith("zh") else "en"
