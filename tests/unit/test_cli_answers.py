"""What `ask`, `chat` and `search` print about an answer."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from langchain_core.documents import Document
from typer.testing import CliRunner

from glm_rag.cli.main import app
from glm_rag.cli.show_answer import print_answer, say_if_unread, show_sources, show_stream
from glm_rag.types import (
    Answer,
    AnswerDelta,
    Citation,
    PackedContext,
    Passage,
    ScoredDocument,
    Usage,
    WindowReport,
)

SENTENCE = "Parental leave is 26 weeks."
DOCUMENT = Document(page_content=SENTENCE, metadata={"source": "file:///a", "title": "Leave"})
CITATION = Citation(1, 0, 27, "c", "file:///a", "Leave", 3, 0, 27, SENTENCE, "verbatim")
ANSWER = Answer(
    text=SENTENCE,
    citations=(CITATION,),
    context=PackedContext((Passage(1, DOCUMENT, SENTENCE, 7),), 7, 100, 0),
    usage=Usage(1, 1),
    timings={},
    finish_reason="stop",
    abstained=False,
)


MORE = "Parental leave is 26 weeks.\n\n2. It can be split.\n3.5 days are left"


class Recorder(list):
    """Stands for stdout: what was written, piece by piece."""

    def write(self, text):
        self.append(text)

    def flush(self):
        pass


def streamed(pieces, marks, monkeypatch):
    """What was shown after each piece; `marks` are the ends told with each, the last at the end."""
    shown, after = Recorder(), []
    monkeypatch.setattr("glm_rag.cli.show_answer.show_sources", lambda answer: None)

    def deltas():
        for piece, ends in zip([*pieces, ""], marks, strict=True):
            last = ANSWER if piece == "" else None
            cited = tuple(replace(CITATION, answer_end=end) for end in ends)
            yield AnswerDelta(piece, last, cited)
            after.append("".join(shown))

    monkeypatch.setattr("sys.stdout", shown)
    show_stream(deltas())
    return [*after, "".join(shown)]


def test_a_mark_stands_directly_behind_its_sentence_as_soon_as_that_is_complete(monkeypatch):
    pieces = [
        "Parental leave is 26 weeks",
        ".",
        "\n\n",
        "2",
        ". It",
        " can be split.\n3",
        ".5 days",
    ]
    # The mark at 49 comes when what stands behind it is shown already: it is left out.
    shown = streamed(pieces, [[], [], [], [], [27], [], [], [49, 58]], monkeypatch)
    assert shown[:4] == [
        "Parental leave is 26 weeks",
        "Parental leave is 26 weeks.",
        "Parental leave is 26 weeks.",
        "Parental leave is 26 weeks.",
    ]
    assert shown[4] == "Parental leave is 26 weeks.[1]\n\n2. It"
    assert shown[5] == "Parental leave is 26 weeks.[1]\n\n2. It can be split."
    assert shown[-1] == "Parental leave is 26 weeks.[1]\n\n2. It can be split.\n3.5 days[1]\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_the_text_shown_is_the_text_streamed_however_it_is_cut(size, monkeypatch):
    pieces = [MORE[start : start + size] for start in range(0, len(MORE), size)]
    shown = streamed(pieces, [[] for _ in [*pieces, ""]], monkeypatch)
    assert shown[-1] == f"{MORE}\n"
    for number, sofar in enumerate(shown[: len(pieces)], 1):
        streamed_text = "".join(pieces[:number])
        held = streamed_text[len(sofar) :]
        assert streamed_text.startswith(sofar)
        assert not held or held.isspace() or held.split("\n")[-1].strip().isdigit()


def test_what_is_cited_twice_is_listed_once(capsys):
    again = replace(CITATION, answer_start=30, answer_end=57)
    show_sources(replace(ANSWER, citations=(CITATION, again)))
    assert capsys.readouterr().out.count(SENTENCE) == 1


def test_an_answer_without_support_is_marked_for_people_and_programs(capsys):
    show_sources(ANSWER)
    assert "No sentence of this answer" not in capsys.readouterr().out
    unsupported = replace(ANSWER, citations=())
    show_sources(unsupported)
    shown = capsys.readouterr().out
    assert "No sentence of this answer stands in the documents." in shown
    assert "read: Leave" in shown
    for answer, supported in ((ANSWER, True), (unsupported, False)):
        print_answer(answer)
        assert json.loads(capsys.readouterr().out)["supported"] is supported


def test_a_nearest_document_is_named_once(capsys):
    near = ScoredDocument(DOCUMENT, 0.5, "hybrid")
    show_sources(replace(ANSWER, abstained=True, citations=(), nearest=(near, near)))
    assert capsys.readouterr().out.count("nearest: Leave") == 1


def test_a_rewritten_question_and_rounds_left_out_are_told(capsys):
    show_sources(ANSWER)
    plain = capsys.readouterr().out
    assert "searched for" not in plain
    assert "not read" not in plain
    window = WindowReport(1000, 100, 50, 0, (20,), 9, 821, rounds_left_out=3)
    show_sources(replace(ANSWER, question="And?", search_question="What?\nAnd?", window=window))
    told = capsys.readouterr().out
    assert "searched for: What? And?" in told
    assert "not read: the first 3 rounds" in told


@pytest.mark.parametrize(
    ("model", "question", "warned"),
    [
        ("smollm2-135m", "育儿假有多长？", True),
        ("smollm2-135m", "How long is parental leave?", False),
        ("chatglm2-6b-32k", "育儿假有多长？", False),
    ],
)
def test_a_chinese_question_to_an_english_model_is_warned_about(model, question, warned, capsys):
    say_if_unread(model, question)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("reads English only" in shown.err) is warned


def test_an_empty_search_is_an_error_like_an_empty_question():
    done = CliRunner().invoke(app, ["search", " "])
    assert "question is empty" in str(done.exception)
