"""Both languages say the same things."""

import re
import string
from pathlib import Path

import pytest

import glm_rag_ui
from glm_rag_ui.choices import CHOICES
from glm_rag_ui.i18n import LANGUAGE_NAMES, TEXTS, choose_language, translator
from glm_rag_ui.render import fixed_words

SOURCES = sorted(Path(glm_rag_ui.__file__).parent.rglob("*.py"))


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("key", TEXTS)
def test_both_languages_take_the_same_arguments(key):
    english, chinese = TEXTS[key]
    assert all(fields(part) == fields(chinese) for part in english.split("|"))
    assert re.search("[\u4e00-\u9fff]", chinese)


def test_every_text_that_the_page_asks_for_exists():
    code = "\n".join(path.read_text("utf-8") for path in SOURCES if path.parent.name != "words")
    asked = set(re.findall(r"""\bt\(["'](\w+)["']""", code))
    assert asked <= set(TEXTS)
    quoted = set(re.findall(r"""["'](\w+)["']""", code)) | {"verbatim", "paraphrase"}
    of_choices = {f"set_{choice.name}{end}" for choice in CHOICES for end in ("", "_help")}
    of_choices |= {
        f"opt_{option.replace('-', '_')}" for choice in CHOICES for option in choice.options
    }
    assert not {
        key
        for key in TEXTS
        if key not in quoted | of_choices and not key.startswith(("reason_", "nav_"))
    }


def test_words_of_the_style_sheet_cannot_leave_their_quotes():
    for language in LANGUAGE_NAMES:
        sheet = fixed_words(translator(language))
        words = re.findall(r'content: "(.*?)"; }', sheet)
        assert len(words) == 3
        assert not re.search(r'["\\<]', "".join(words))


def test_counts_choose_singular_and_plural():
    t = translator("en")
    assert t("documents", n=1) == "1 document"
    assert t("documents", n=1200) == "1,200 documents"
    assert translator("zh")("documents", n=1) == "1 份文档"


@pytest.mark.parametrize(
    ("wanted", "locale", "language"),
    [
        (None, None, "en"),
        (None, "zh-CN", "zh"),
        (None, "zh-TW", "zh"),
        (None, "de-DE", "en"),
        ("en", "zh-CN", "en"),
        ("zh", "en-US", "zh"),
        ("klingon", "zh", "zh"),
    ],
)
def test_the_address_beats_the_browsers_language(wanted, locale, language):
    assert choose_language(wanted, locale) == language
