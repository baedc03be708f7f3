"""An exported conversation shows everything that was said and does nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from glm_rag.conversations import to_markdown
from glm_rag.types import (
    Answer,
    Citation,
    Conversation,
    PackedContext,
    SavedTurn,
    Unsupported,
    Usage,
)

TEXT = "Parental leave is 26 weeks. Nobody knows the 99 reasons."
CITATION = Citation(
    4, 0, 27, "c", "file:///secret/folder/leave%20policy.pdf", "Leave", 3, 0, 27,
    "Parental leave is 26 weeks.", "verbatim",
)  # fmt: skip
ANSWER = Answer(
    TEXT, (CITATION,), PackedContext((), 0, 0, 0), Usage(1, 1), {}, "stop", abstained=False,
    unsupported=(Unsupported(28, 56, "sentence"), Unsupported(45, 47, "number")),
)  # fmt: skip
TURN = SavedTurn("t", "c", 0, "How long?", text=TEXT, answer=ANSWER, status="done")


def exported(*turns: SavedTurn, language="en", title="My talk") -> str:
    return to_markdown(Conversation("c", "handbook", title, 0.0, 0.0, turns), language)


def test_questions_are_headings_and_sentences_lead_to_their_sources():
    text = exported(TURN)
    assert text.startswith("# My talk\n\nKnowledge base: handbook · ")
    assert "\n## How long?\n\nParental leave is 26 weeks.[^1] Nobody knows" in text
    assert "[^1]: Leave, page 3 (leave policy.pdf): “Parental leave is 26 weeks.”\n" in text
    assert "Not supported by the documents: “Nobody knows the 99 reasons.”" in text
    assert "In no document: “99”" in text
    assert "/secret/folder" not in text


def test_a_conversation_in_chinese_is_chinese():
    text = exported(TURN, language="zh", title="")
    assert text.startswith("# 对话\n\n知识库：handbook · ")
    assert "[^1]: Leave，第 3 页（leave policy.pdf）：“Parental leave is 26 weeks.”" in text
    assert "文档中没有依据：“Nobody knows the 99 reasons.”" in text


def test_footnotes_are_numbered_over_the_conversation_and_named_once():
    other = replace(CITATION, source="file:///b", title="Other", page=None)
    second = replace(ANSWER, citations=(CITATION, replace(other, answer_start=28, answer_end=56)))
    text = exported(TURN, replace(TURN, id="u", position=1, answer=second))
    assert text.count("[^1]") == 3
    assert text.count("[^2]") == 2
    assert "[^2]: Other (b): “" in text


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (replace(TURN, answer=None, status="stopped"), "*Stopped here.*"),
        (replace(TURN, answer=None, status="failed", error="NaN*"), "*Broke off: NaN\\**"),
        (replace(TURN, answer=None, status="running", text=""), "*Still being written.*"),
        (replace(TURN, answer=replace(ANSWER, citations=())), "*No sentence of this answer"),
    ],
)
def test_what_went_wrong_is_told(turn, words):
    assert words in exported(turn)


def test_an_abstention_is_its_own_words():
    declined = replace(ANSWER, text="Nothing found.", citations=(), abstained=True, reason="weak")
    text = exported(replace(TURN, answer=declined))
    assert text.endswith("## How long?\n\nNothing found.\n")


def test_emphasis_and_lists_of_an_answer_stay():
    said = replace(ANSWER, text="**Two** things:\n\n- one\n- two", citations=(), unsupported=())
    html = MarkdownIt().render(exported(replace(TURN, answer=said)))
    assert "<strong>Two</strong>" in html
    assert html.count("<li>") == 2


def test_a_bracket_behind_a_mark_makes_no_link_of_it():
    said = replace(ANSWER, text="Parental leave is 26 weeks.(javascript:alert)", unsupported=())
    text = exported(replace(TURN, answer=said))
    assert "weeks.[^1]\\(javascript:alert)" in text
    assert "<a" not in MarkdownIt().render(text)


HOSTILE = [
    "<script>alert(1)</script>",
    "![x](http://evil/x.png)",
    "\\![x](http://evil)",
    "\\\\[x](javascript:alert(1))",
    "[x]: http://evil\n\n[x]",
    "<http://evil>",
    "<!-- ",
    "```\nswallowed",
    "~~~\nswallowed",
    "# big\n===\nx\n---\n",
    "`![x](y)",
    "[^1]: mine",
    "&lt;b&gt;",
]


@given(
    st.lists(st.sampled_from(HOSTILE) | st.text("<>![]()`~#\\\n a:*_-=|&;x", max_size=20)).map(
        "\n".join
    )
)
def test_texts_from_outside_neither_load_nor_link_nor_swallow_anything(hostile):
    cited = replace(CITATION, title=hostile, quote=hostile, answer_end=min(27, len(hostile)))
    said = replace(ANSWER, text=hostile, citations=(cited,), unsupported=())
    turn = replace(TURN, question=hostile or "?", answer=said)
    failed = replace(TURN, question="Last?", answer=None, status="failed", error=hostile)
    text = exported(turn, failed, title=hostile)
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    kinds = {token.type for token in tokens}
    kinds |= {child.type for token in tokens for child in token.children or ()}
    assert not kinds & {
        "image", "link_open", "html_block", "html_inline", "fence", "code_inline",
    }  # fmt: skip
    # Ours are the only headings: nothing was swallowed, nothing was added.
    assert sum(token.type == "heading_open" for token in tokens) == 3
