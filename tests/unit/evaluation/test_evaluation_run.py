"""From questions to outcomes, to a report, and on where a run was broken off."""

import json
from dataclasses import replace

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from glm_rag.errors import ConfigError
from glm_rag.evaluation.datasets import Question
from glm_rag.evaluation.matching import find_gold
from glm_rag.evaluation.outcome import AnswerOutcome, Evidence, Outcome, OutcomeFile
from glm_rag.evaluation.report import tables, to_json, to_markdown, write_report
from glm_rag.evaluation.run import ask_all, judge_answer
from glm_rag.evaluation.summary import make_report
from glm_rag.types import Answer, Citation, PackedContext, Passage, Usage

LEAVE = "Every parent may take sixteen weeks of parental leave with full pay in the first year."
SICK = "Sick leave is paid for six weeks, and a note from a doctor is needed from the third day on."
FOOD = "The canteen on the ground floor serves lunch from noon to two, and nothing on Sundays."
QUESTIONS = [
    Question("1", "How long is leave?", ("sixteen weeks",), LEAVE, group="leave"),
    Question("2", "How long is sick leave?", ("six weeks",), SICK, group="leave"),
    Question("3", "Who is the king?", answerable=False, group="king"),
]


class Recited(BaseRetriever):
    """Finds the same passages for every question, with falling evidence."""

    def _get_relevant_documents(self, query, *, run_manager):
        return [
            Document(id=str(n), page_content=text, metadata={"source": str(n), "evidence": margin})
            for n, (text, margin) in enumerate([(LEAVE, 1.5), (SICK, 0.5), (FOOD, -2.0)])
        ]


def outcomes(**options):
    golds = find_gold(QUESTIONS, [], [LEAVE + SICK])
    return list(ask_all(QUESTIONS, golds, Recited(), **options))


def test_evidence_is_measured_with_and_without_the_right_passages_and_their_article():
    leave, sick, king = outcomes(thresholds={"en": -0.5, "zh": 0.0})
    assert leave.relevance == (True, False, False)
    assert sick.relevance == (False, True, False)
    assert [leave.present.margin, leave.hard.margin, leave.easy.margin] == [1.5, 0.5, -2.0]
    assert [sick.present.margin, sick.hard.margin, sick.easy.margin] == [1.5, 1.5, -2.0]
    assert leave.hard.probability == pytest.approx(0.5)  # margin 0.5 above a threshold of -0.5
    assert (king.answerable, king.present.margin, king.hard) == (False, 1.5, None)
    assert leave.timings["search"] > 0


def test_a_report_adds_up_and_leaves_out_what_was_not_measured():
    report = make_report("q.csv", {"a": outcomes()})
    (summary,) = report.configurations
    metrics = summary.metrics["all"]
    assert (metrics["hit@1"].value, metrics["hit@3"].value, metrics["hit@1"].count) == (0.5, 1, 2)
    assert metrics["MRR@10"].value == 0.75
    assert metrics["evidence kept"].value == 1
    assert metrics["rejected, hard"].value == 0
    assert metrics["rejected, easy"].value == 1
    assert metrics["rejected, absent"].value == 0
    assert summary.abstention["all"]["easy"].auc.value == 1
    assert summary.abstention["all"]["hard"].auc.value == 0.75
    assert summary.abstention["all"]["easy"].rejected_keeping_90 == 1
    assert summary.reliability is None
    assert "F1" not in metrics
    assert report.differences == {}


def test_two_configurations_are_compared_on_the_questions_that_both_have():
    first = outcomes()
    second = [replace(o, relevance=(True,)) for o in first[1:]]
    report = make_report("q.csv", {"a": first, "b": second})
    found = report.differences["all"]["hit@1"]
    assert (found.value, found.count) == (1, 1)  # the second question alone
    assert "difference" in to_markdown(report)


def test_languages_have_figures_of_their_own_where_there_are_two():
    asked = outcomes()
    both = [*asked, replace(asked[0], id="4", language="zh", relevance=())]
    metrics = make_report("q", {"a": both}).configurations[0].metrics
    assert set(metrics) == {"all", "en", "zh"}
    assert (metrics["en"]["hit@3"].value, metrics["zh"]["hit@3"].value) == (1, 0)
    titles = [title for title, _, _ in tables(make_report("q", {"a": both}))]
    assert titles[:3] == ["All questions", "Questions in en", "Questions in zh"]


# ---------------------------------------------------------------- answers


def answer(text, quotes, **fields):
    document = Document(page_content=LEAVE, metadata={"source": "x"})
    citations = tuple(
        Citation(1, 0, 1, "c", "x", "X", None, 0, len(quote), quote, "verbatim") for quote in quotes
    )
    return Answer(
        text=text,
        citations=citations,
        context=PackedContext((Passage(1, document, LEAVE, 1),), 1, 1, 0),
        usage=Usage(1, 1),
        timings={"total": 2.0},
        finish_reason="stop",
        abstained=fields.get("abstained", False),
        reason="none" if fields.get("abstained") else "",
    )


def test_citations_count_where_their_quote_is_of_the_right_paragraph():
    gold, *_ = find_gold(QUESTIONS, [], [LEAVE])
    found = judge_answer(answer("Sixteen weeks.", ["sixteen weeks of parental leave", FOOD]), gold)
    assert (found.num_citations, found.num_right_citations) == (2, 1)
    assert (found.exact_match, found.f1, found.contains) == (1, 1, 1)


def test_with_an_answer_alone_a_citation_counts_for_its_passage():
    (gold,) = find_gold([Question("1", "?", ("sixteen weeks",))], [], [])
    assert judge_answer(answer("x", ["with full pay"]), gold).num_right_citations == 1


def test_an_answer_that_abstains_scores_nothing_though_its_text_names_the_answer():
    gold, *_ = find_gold(QUESTIONS, [], [LEAVE])
    found = judge_answer(answer("Nothing about sixteen weeks.", [], abstained=True), gold)
    assert (found.contains, found.f1, found.abstained) == (0, 0, True)


class Scripted:
    """An assistant that answers the first and the last question, and cites for the first."""

    def ask(self, question):
        if "sick" in question:
            return answer("I found nothing.", [], abstained=True)
        return answer("Sixteen weeks.", [LEAVE] if "leave" in question else [])


def test_answers_citations_and_refusals_are_summed_over_the_right_questions():
    asked = outcomes(assistant=Scripted())
    metrics = make_report("q", {"a": asked}).configurations[0].metrics["all"]
    values = {name: (found.value, found.count) for name, found in metrics.items()}
    assert values["answered"] == (0.5, 2)
    assert values["declined"] == (0, 1)
    assert values["exact match"] == (0.5, 2)
    assert values["citation precision"] == (1, 1)
    assert values["citation recall"] == (1, 1)
    assert make_report("q", {"a": asked}).configurations[0].latency["total"].p95 == 2.0


# ---------------------------------------------------------------- files


def test_the_report_is_written_as_strict_json_and_as_tables(tmp_path):
    nothing = replace(outcomes()[2], present=Evidence(None))
    report = make_report("q.csv", {"a": [*outcomes()[:2], nothing]})
    written = write_report(report, tmp_path / "new" / "folder")
    content = json.loads(to_json(report))
    assert content["configurations"][0]["metrics"]["all"]["hit@1"]["value"] == 0.5
    assert (tmp_path / "new" / "folder" / "report.json").read_text("utf-8") == to_json(report)
    assert "| hit@1 | 50.0 (0.0 to 100.0), n = 2 |" in to_markdown(report)
    assert len(written) >= 2


def test_the_plot_is_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    report = make_report("q", {"a": outcomes(), "b": outcomes()})
    write_report(report, tmp_path)
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


ANSWERED = Outcome(
    "1", "问?", "zh", "g", True, True, (True, False), Evidence(1.0, 0.5), None, Evidence(None),
    {"total": 1.0}, AnswerOutcome("a\nb", False, "", 1.0, 1.0, 1.0, 2, 1),
)  # fmt: skip


def test_what_is_kept_is_read_back_and_a_torn_line_is_asked_again(tmp_path):
    path = tmp_path / "outcomes.jsonl"
    with OutcomeFile(path, {"k": 1}) as file:
        assert file.done == []
        file.append(ANSWERED)
        file.append(replace(ANSWERED, id="2", answer=None))
    path.write_bytes(path.read_bytes()[:-20])
    with OutcomeFile(path, {"k": 1}) as file:
        assert file.done == [ANSWERED]
        file.append(replace(ANSWERED, id="2"))
    with OutcomeFile(path, {"k": 1}) as file:
        assert [outcome.id for outcome in file.done] == ["1", "2"]


def test_outcomes_of_another_run_are_not_mixed_in(tmp_path):
    path = tmp_path / "outcomes.jsonl"
    with OutcomeFile(path, {"k": 1}):
        pass
    with pytest.raises(ConfigError, match="of another run: choose another --out"):
        OutcomeFile(path, {"k": 2})
    path.write_text('{"run": {"k": 1}}\n{"id": "1"}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2: no finished question"):
        OutcomeFile(path, {"k": 1})
    path.write_text("{\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 1: not JSON"):
        OutcomeFile(path, {"k": 1})
