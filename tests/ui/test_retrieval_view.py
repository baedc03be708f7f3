"""The retrieval test in process, over a real knowledge base."""

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("faiss")

from library import CANTEEN, CHINESE, LEAVE, opened, shown, typed

from glm_rag.config import load_config
from glm_rag_ingest.pipeline import ingest
from glm_rag_ui import filters

pytestmark = pytest.mark.usefixtures("words")

HOSTILE = (
    "# <script>window.hacked = 1</script>\n\n<img src=x> parental leave of the hostile kind.\n"
)


@pytest.fixture
def handbook(home, words, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    texts = {"leave.md": LEAVE, "canteen.txt": CANTEEN, "手册.md": CHINESE, "<b>x.md": HOSTILE}
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    ingest([folder], "handbook", config=load_config())
    return folder


def ask(question: str, **query: str):
    test = opened("retrieval", kb="handbook", **query)
    return test.text_input(key="test-question").set_value(question).run()


def test_three_orders_stand_side_by_side_with_marked_words(handbook):
    html = shown(ask("How many weeks of parental leave?"))
    assert html.count("<section><h3>") == 3
    assert "<mark>weeks</mark>" in html
    assert "<mark>leave</mark>" in html
    assert "<mark>of</mark>" not in html
    assert "This would be answered." in html  # an embedder that nobody measured declines nothing
    assert "Nobody has measured this embedder" in html


def test_chinese_words_are_marked_as_runs(handbook):
    html = shown(ask("带薪年假有多少天？", lang="zh"))
    assert "<mark>带薪年假</mark>" in html
    assert "系统会回答这个问题" in html


def test_hostile_text_is_shown_as_text(handbook):
    html = shown(ask("hostile parental leave"))
    assert "&lt;script&gt;window.hacked = 1&lt;/script&gt;" in html
    assert "<script>window" not in html
    assert "<img" not in html


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("Hello!", "small talk"),
        ("who is it", "no word that says what is looked for"),
        ("???", "This would not be answered."),
        ("zebra xylophone", "This would be answered."),
    ],
)
def test_a_question_without_evidence_is_explained(handbook, question, said):
    assert said in shown(ask(question))


def test_words_that_stand_in_no_passage_are_crossed_out(handbook):
    html = shown(ask("parental zebra"))
    assert 'gr-missing">zebra' in html
    assert 'gr-missing">parental' not in html
    assert "No passage shares a word" in shown(ask("zebra xylophone"))


def test_a_filter_narrows_the_orders_and_one_that_matches_nothing_says_so(handbook):
    test = ask("parental leave weeks")
    language = next(c for c in test.button_group if c.key == "test-filter-language")
    language.set_value("zh").run()
    html = shown(test)
    assert "员工每年" in html
    assert "sixteen" not in html
    typed(test.selectbox(key="test-filter-folder"), "/no/such/folder").run()
    assert "No passage passes the filter." in shown(test)


@pytest.mark.parametrize("question", ["parental leave", ""])
def test_an_empty_or_absent_knowledge_base_says_what_to_do(home, question):
    test = opened("retrieval", kb="nothing")
    assert "This knowledge base is empty" in shown(test)
    assert not [field for field in test.text_input if field.key == "test-question"]


def test_diversity_shows_what_the_model_is_given(handbook, monkeypatch):
    monkeypatch.setenv("GLM_RAG_RETRIEVAL__MMR", "0.5")
    html = shown(ask("parental leave weeks"))
    assert "What the model is given" in html
    assert "fused order: " in html


def test_the_filter_is_what_docs_retrieval_says():
    assert filters.where([], None, None, None) is None
    assert filters.where(["file:///a"], " /docs ", "2026-01-31", "zh") == {
        "source": ["file:///a"],
        "path": {"prefix": "/docs"},
        "mtime": {"gte": "2026-01-31"},
        "document_language": "zh",
    }


def test_the_page_opens_whatever_number_of_passages_is_set(handbook, monkeypatch):
    monkeypatch.setenv("GLM_RAG_RETRIEVAL__K", "100")
    test = opened("retrieval", kb="handbook")
    assert not test.exception
    assert test.number_input[0].value == 100


def test_documents_of_one_title_are_told_apart_in_the_filter(home, folder):
    for name in ("2023.md", "2024.md"):
        (folder / name).write_text(f"# Report\n\nThis is the report of {name[:4]}.\n")
    ingest([folder], "twins", config=load_config())
    options = opened("retrieval", kb="twins").multiselect[0].options
    assert options == ["Report · 2023.md", "Report · 2024.md"]
