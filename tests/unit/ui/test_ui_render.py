"""What the page makes of foreign text: nothing in it may come to life."""

import re
from html.parser import HTMLParser

import pytest

import ui_fakes
from glm_rag.errors import ContextWindowError, ModelNotFoundError
from glm_rag_ui import failures, render
from glm_rag_ui.i18n import translator

EN = translator("en")
ZH = translator("zh")

NASTY = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![x](http://evil.example/pixel.png)",
    "[click](javascript:alert(1))",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "$\\sum_i x_i$ and $$y$$",
    "`code` ``` <b>",
    ":smile: :material/delete: :red[boo]",
    "&lt;script&gt; &amp; &#60;b&#62;",
    "</details></article></div><h1>out</h1>",
    "a\u202egnp.exe\u2066b",
    "\x00\x07\x1b[31m \ud800",
    "\ue0000\ue001 \ue0009\ue001",
    "- <b>x</b>\n1. <i>y</i>\n# <u>z</u>\n```\n<s>q</s>\n```\n**<a href=x>bold</a>**",
    "x" * 20_000,
]


class Reader(HTMLParser):
    """Collects the tags, attributes and text of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in {"br", "i"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in {"br", "i"}:
            assert self.open
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


OUR_TAGS = {
    *("div", "p", "br", "ul", "ol", "li", "pre", "code", "strong", "a", "span", "mark", "details"),
    *("summary", "article", "header", "small", "b", "bdi", "section", "h1", "h2", "i", "q"),
}
OUR_ATTRIBUTES = {
    *("class", "dir", "href", "id", "role", "aria-label", "value", "style", "tabindex"),
    *("target", "rel"),
}


def assert_harmless(html: str) -> Reader:
    """Only our own tags and attributes, properly nested, and links within the page."""
    seen = Reader(html)
    assert set(seen.tags) <= OUR_TAGS
    assert {name for name, _ in seen.attributes} <= OUR_ATTRIBUTES
    for name, value in seen.attributes:
        if name == "href":
            assert value[0] == "#" or re.fullmatch(r"document\?[\w%&=.+-]*", value, re.ASCII)
        if name == "style":
            assert re.fullmatch(r"flex:\d+", value)
    assert not seen.open
    return seen


@pytest.mark.parametrize("text", NASTY)
def test_foreign_text_never_becomes_markup_of_its_own(text):
    assert_harmless(render.plain(text))
    assert_harmless(render.markdown(text))
    assert_harmless(render.answer_block(render.answer_body(text), live=True))
    assert_harmless(render.notice("error", text, text))
    assert_harmless(render.files([text, text]))
    assert_harmless(render.waiting(EN, text))
    assert_harmless(render.panel(text, text, label=text, code=text))
    assert_harmless(render.hero(text, text, EN))
    hit = ui_fakes.citation(text, title=text, at=len(text))
    assert_harmless(render.answer_body(text, [hit], key="a0", t=EN))
    assert_harmless(failures.notice(ContextWindowError(text), EN))


@pytest.mark.parametrize("text", [text for text in NASTY if text.isprintable()])
def test_plain_text_reads_back_as_it_was(text):
    assert Reader(render.plain(text)).text == text


LATER = re.compile(r":[a-z_/+-]+:|https?://|www\.|\w@\w|->|<-|--|>=|<=|~=", re.I)


@pytest.mark.parametrize(
    "text", [*NASTY, "a -> b -- c <= d ~= e", "www.evil.example ana@e.example"]
)
def test_a_label_of_a_widget_is_only_text(text):
    label = render.label(text, 200)
    bare = re.sub(r"\\[!-/:-@\[-`{-~]", "", label)
    assert not re.search(r"[!-/:-@\[-`{-~\n]", bare), "every sign is escaped"
    parsed = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", label)
    assert not LATER.search(parsed), "and nothing is found after that"
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x1f]", parsed)


def test_a_label_reads_as_its_text_and_is_short():
    assert render.label("staff handbook 2024") == "staff handbook 2024"
    assert render.label("a\n\tb  c") == "a b c"
    assert render.label("手册（第 2 版）") == "手册（第 2 版）"
    assert len(render.label("x" * 100_000)) == 60
    assert render.label("x" * 100_000).endswith("…")
    assert render.label("") == ""


def test_a_script_of_ours_holds_no_foreign_words():
    script = render.scroll_to(".gr-end", "*/ alert(1) </script>'\"\n")
    assert script.count("<") == 2
    assert "/* alert1script */" in script


def test_escaping_covers_attributes_direction_and_control_characters():
    assert render.escape("a\u202eb\x00c\ud800") == "a\ufffdb\ufffdc\ufffd"
    assert render.escape("\"'<&>") == "&quot;&#x27;&lt;&amp;&gt;"
    assert render.escape("one\n\ttwo") == "one\n\ttwo"


def test_images_links_and_formulas_stay_text():
    text = "![x](http://e.example/p.png) [a](javascript:alert(1)) $x$ :smile:"
    seen = Reader(render.markdown(text))
    assert seen.text == text
    assert seen.tags == ["p"]


def test_simple_markdown_is_kept():
    html = render.markdown("Intro **bold** `a*b`\nnext\n\n- one\n- two\n\n3. three\n4) four\n# End")
    assert "<p>Intro <strong>bold</strong> <code>a*b</code><br>next</p>" in html
    assert "<ul><li>one</li><li>two</li></ul>" in html
    assert '<ol><li value="3">three</li><li value="4">four</li></ol>' in html
    assert '<p class="gr-heading">End</p>' in html


def test_numbers_at_the_start_of_a_sentence_are_no_list():
    assert render.markdown("3.5 weeks") == "<p>3.5 weeks</p>"
    assert render.markdown("一、概述") == "<p>一、概述</p>"


def test_code_blocks_end_with_the_text_when_they_are_not_closed():
    assert render.markdown("```py\nx < 1") == "<pre><code>x &lt; 1</code></pre>"


def test_a_mark_stands_right_behind_the_cited_words():
    html = render.answer_body(ui_fakes.REPLY, [ui_fakes.citation()], key="a7", t=EN)
    before, after = html.split('<a class="gr-cite gr-verbatim" href="#a7-1"', 1)
    assert Reader(before + "</p>").text == "Parental leave lasts up to 16 weeks."
    assert Reader("<p>" + after.split("</a>")[1]).text.startswith(" It can be split")


def test_a_mark_shows_quote_title_and_page():
    html = render.answer_body("Yes.", [ui_fakes.citation(at=4)], key="a0", t=ZH)
    assert ui_fakes.QUOTE in html
    assert "Staff handbook" in html
    assert "第 3 页" in html


def test_the_same_passage_is_marked_once_per_place():
    hits = [ui_fakes.citation(at=4), ui_fakes.citation("weeks", at=4)]
    html = render.answer_body("Yes.", hits, key="a0", t=EN)
    assert html.count("<a ") == 1


def test_marks_of_several_passages_keep_their_order():
    hits = [ui_fakes.citation(at=4, index=2), ui_fakes.citation(at=4, index=1)]
    html = render.answer_body("Yes. No.", hits, key="k", t=EN)
    assert html.index("#k-1") < html.index("#k-2") < html.index(" No.")


def test_a_citation_past_the_end_is_marked_at_the_end():
    html = render.answer_body("Yes.", [ui_fakes.citation(at=99)], key="a0", t=EN)
    assert Reader(html).text.startswith("Yes.1")


def test_text_that_imitates_our_placeholders_makes_no_mark():
    html = render.answer_body("\ue0000\ue001", [ui_fakes.citation(at=0)], key="a0", t=EN)
    assert html.count("<a ") == 1
    assert "\ue000" not in html


def test_figures_tell_latency_speed_and_tokens():
    text = Reader(render.figures(ui_fakes.answer(), EN)).text
    assert (
        text
        == "first word after 0.8 s · 19.2 tokens/s · 24 tokens written · 412 read · 2.1 s in all"
    )


def test_speed_is_not_told_for_a_single_token():
    assert render.tokens_per_second(ui_fakes.abstention()) == 0


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("file:///a/b/staff%20handbook.pdf", "staff handbook.pdf"),
        ("file:///a/%E5%91%98%E5%B7%A5.md", "员工.md"),
        ("/a/b.txt", "b.txt"),
        ("C:\\docs\\c.txt", "c.txt"),
        ("note 7", "note 7"),
        ("a 100% sure.txt", "a 100% sure.txt"),
        ("", ""),
    ],
)
def test_file_name_is_the_last_part_of_the_source(source, name):
    assert render.file_name(source) == name


def test_errors_name_the_problem_in_the_readers_language_and_what_to_do():
    error = ModelNotFoundError("no model 'x': run glm-rag model pull x")
    assert "本机没有这个模型" in failures.notice(error, ZH)
    assert "glm-rag model pull x" in failures.notice(error, ZH)


def test_unknown_errors_show_their_kind_and_no_detail():
    html = failures.notice(RuntimeError("secret path /home/ana"), EN)
    assert "RuntimeError" in html
    assert "secret" not in html
