"""The page of knowledge bases in process, over real knowledge bases."""

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("faiss")

from library import (
    CANTEEN,
    LEAVE,
    answer,
    button,
    dialog,
    documents,
    finished,
    has_button,
    opened,
    part,
    shown,
    source_of,
    upload,
)

from glm_rag.config import load_config
from glm_rag.knowledge.base import KnowledgeBase, list_knowledge_bases
from glm_rag_ingest.pipeline import ingest
from glm_rag_ui import runs, uploads
from word_embeddings import WordEmbeddings

pytestmark = pytest.mark.usefixtures("words")

HOSTILE = (
    "# <script>window.hacked = 1</script> **b** $x$ :smile:\n\n"
    "<img src=x onerror='window.hacked = 1'> ![p](http://evil.example/p.png) \u202egnp.exe\n"
)


def titles(test) -> list[str]:
    return list(test.dataframe[-1].value["title"])


# ---------------------------------------------------------------- knowledge bases


def test_without_any_knowledge_base_the_page_says_how_one_is_made(home):
    test = opened("knowledge")
    assert "There is no knowledge base default yet" in shown(test)
    assert has_button(test, "New knowledge base")
    assert not test.dataframe


def test_a_new_knowledge_base_is_made_and_chosen(home):
    test = answer(dialog(opened("knowledge"), "New knowledge base"), " 员工 手册 ", "Create")
    assert list_knowledge_bases(home) == ["员工 手册"]
    assert "<bdi>员工 手册</bdi>" in shown(test)
    assert test.query_params["kb"] in ("员工 手册", ["员工 手册"])


@pytest.mark.parametrize("name", ["", "../evil", "a/b", ".hidden", "x" * 65, "a\x00b", "<b>"])
def test_a_bad_name_is_one_clear_line_and_makes_nothing(home, name):
    test = answer(dialog(opened("knowledge"), "New knowledge base"), name, "Create")
    assert "This cannot be a name." in shown(test)
    assert list_knowledge_bases(home) == []


def test_an_address_with_a_bad_name_promises_nothing(home):
    test = opened("knowledge", kb="../x")
    assert "This cannot be a name." in shown(test)
    assert not test.file_uploader


def test_a_name_that_is_taken_is_refused(home, handbook):
    test = dialog(opened("knowledge", kb="other"), "New knowledge base")
    assert "There is a knowledge base handbook already." in shown(
        answer(test, "handbook", "Create")
    )
    # Also where it is the chosen one.
    test = dialog(opened("knowledge", kb="handbook"), "New knowledge base")
    assert "There is a knowledge base handbook already." in shown(
        answer(test, "handbook", "Create")
    )
    assert documents("handbook") == 3


def test_a_renamed_knowledge_base_keeps_its_documents_and_stays_chosen(home, handbook):
    test = dialog(opened("knowledge", kb="handbook"), "Rename")
    test = answer(test, "manual", "Rename")
    assert list_knowledge_bases(home) == ["manual"]
    assert "<bdi>manual</bdi>" in shown(test)
    assert len(titles(test)) == 3


def test_a_knowledge_base_is_deleted_only_when_its_name_is_typed(home, handbook):
    test = dialog(opened("knowledge", kb="handbook"), "Delete")
    test = answer(test, "handbok", "Delete for good")
    assert "That is not its name." in shown(test)
    assert list_knowledge_bases(home) == ["handbook"]
    test = answer(test, "handbook", "Delete for good")
    assert list_knowledge_bases(home) == []
    assert (handbook / "leave.md").exists()


def test_a_deleted_knowledge_base_takes_its_uploads_and_its_last_outcome_along(home):
    test = upload(opened("knowledge", kb="fresh"), ("a.md", LEAVE.encode()))
    finished(home, "fresh")
    folder = uploads.folder(home, "fresh")
    (folder / "not read yet.md").write_text(CANTEEN)
    answer(dialog(test.run(), "Delete"), "fresh", "Delete for good")
    assert not folder.exists()
    assert runs.SHARED.get(home, "fresh") is None


def test_a_question_about_one_document_never_turns_to_another(home, handbook):
    first, second = source_of("handbook", "leave.md"), source_of("handbook", "canteen.txt")
    test = dialog(opened("knowledge", kb="handbook", source=first), "Remove")
    with KnowledgeBase.open("handbook", embeddings=WordEmbeddings()) as found:
        found.remove(first)  # by somebody else
    test.query_params["source"] = second
    test.run()
    assert not has_button(test, "Remove it")


def test_a_knowledge_base_made_anew_under_a_deleted_name_is_empty(home, handbook):
    test = opened("knowledge", kb="handbook")
    assert len(titles(test)) == 3
    test = answer(dialog(test, "Delete"), "handbook", "Delete for good")
    test = answer(dialog(test, "New knowledge base"), "handbook", "Create")
    assert documents("handbook") == 0
    assert "leave.md" not in shown(test)
    assert not test.dataframe


def test_all_knowledge_bases_are_listed_with_their_numbers_a_damaged_one_too(home, handbook):
    (home / "kb" / "broken").mkdir()
    (home / "kb" / "broken" / "library.sqlite").write_bytes(b"no database" * 100)
    test = opened("knowledge", kb="handbook")
    table = test.dataframe[0].value
    assert list(table["name"]) == ["broken", "handbook"]
    assert list(table["documents"])[1] == 3
    assert "This knowledge base cannot be opened." in shown(opened("knowledge", kb="broken"))


def test_another_writer_is_one_clear_line(home, handbook):
    with KnowledgeBase.open("handbook", embeddings=WordEmbeddings()) as held, held.writing():
        test = dialog(opened("knowledge", kb="handbook"), "Rename")
        test = answer(test, "manual", "Rename")
        assert "Somebody is adding documents to this knowledge base" in shown(test)
        runs.SHARED.add("handbook", runs.Batch(load_config(), (handbook,)))
        finished(home, "handbook")
        assert "Somebody is adding documents" in shown(opened("knowledge", kb="handbook"))


# ---------------------------------------------------------------- documents


def test_documents_are_filtered_by_words_language_and_format(home, handbook):
    test = opened("knowledge", kb="handbook")
    assert len(titles(test)) == 3
    test.text_input(key="kb-filter-text").set_value("PARENTAL").run()
    assert titles(test) == ["Parental leave"]
    test.text_input(key="kb-filter-text").set_value("").run()
    language = next(c for c in test.button_group if c.key == "kb-filter-language")
    language.set_value("zh").run()
    assert titles(test) == ["员工手册"]
    next(c for c in test.button_group if c.key == "kb-filter-language").set_value(None).run()
    test.multiselect(key="kb-filter-kind").set_value(["Text"]).run()
    assert titles(test) == ["canteen.txt"]
    test.text_input(key="kb-filter-text").set_value("no such thing").run()
    assert "No document matches." in shown(test)


def test_a_document_shows_its_passages_with_text_and_place(home, handbook):
    source = source_of("handbook", "leave.md")
    html = shown(opened("knowledge", kb="handbook", source=source))
    assert "Every parent may take sixteen weeks of leave with full pay." in html
    assert "characters 0–" in html
    assert 'href="document?' in html


def test_the_passages_of_a_long_document_come_page_by_page(home, folder):
    text = "\n\n".join(f"Paragraph {n} says this. " * 30 for n in range(60))
    (folder / "long.txt").write_text(text)
    ingest([folder], "long", config=load_config())
    source = source_of("long", "long.txt")
    test = opened("knowledge", kb="long", source=source)
    html = shown(test)
    assert html.count('<article class="gr-passage">') == 10
    assert "Paragraph 0 says" in html
    assert "Paragraph 59 says" not in html


def test_hostile_names_and_texts_are_shown_as_text(home, folder):
    (folder / "<b>x $1$ :smile: `c`.md").write_text(HOSTILE, "utf-8")
    (folder / "<i>torn.pdf").write_bytes(b"%PDF-1.7 torn")
    ingest([folder], "handbook", config=load_config())
    source = source_of("handbook", ".md")
    test = opened("knowledge", kb="handbook", source=source)
    html = shown(test)
    assert "&lt;script&gt;window.hacked = 1&lt;/script&gt;" in html
    for tag in ("<script>window", "<img", "<b>x $1", "\u202e"):
        assert tag not in html
    outside = [text for text in labels(test) if "script" in text or "smile" in text]
    assert outside == []
    test = dialog(test, "Remove")
    assert "&lt;script&gt;" in shown(test)
    failures = part(opened("knowledge", kb="handbook"), "failures")
    assert list(failures.dataframe[-1].value["file"]) == ["<i>torn.pdf"]
    assert [text for text in labels(failures) if "torn" in text] == []


def labels(test) -> list[str]:
    """All that Streamlit reads as Markdown."""
    kinds = (test.button, test.text_input, test.markdown, test.caption, test.expander)
    return [getattr(item, "label", None) or getattr(item, "value", "") for k in kinds for item in k]


def test_one_document_is_removed_after_a_question_and_its_file_stays(home, handbook):
    source = source_of("handbook", "leave.md")
    test = dialog(opened("knowledge", kb="handbook", source=source), "Remove")
    assert documents("handbook") == 3
    assert "The file itself stays." in shown(test)
    test = button(test, "Remove it").click().run()
    assert documents("handbook") == 2
    assert (handbook / "leave.md").exists()
    assert "Parental leave" not in titles(test)


def test_a_removed_upload_takes_its_file_along(home):
    upload(opened("knowledge", kb="fresh"), ("a.md", LEAVE.encode()), ("b.md", CANTEEN.encode()))
    finished(home, "fresh")
    source = source_of("fresh", "a.md")
    test = dialog(opened("knowledge", kb="fresh", source=source), "Remove")
    button(test, "Remove it").click().run()
    assert [path.name for path in uploads.folder(home, "fresh").iterdir()] == ["b.md"]
    test = dialog(opened("knowledge", kb="fresh"), "Delete")
    answer(test, "fresh", "Delete for good")
    assert not uploads.folder(home, "fresh").exists()


def test_one_document_is_read_again(home, handbook):
    source = source_of("handbook", "leave.md")
    (handbook / "leave.md").write_text(LEAVE.replace("sixteen", "twenty"))
    (handbook / "canteen.txt").write_text("Lunch is cancelled for good from now on.")
    test = opened("knowledge", kb="handbook", source=source)
    button(test, "Read again").click().run()
    assert finished(home, "handbook").report.num_updated == 1
    html = shown(opened("knowledge", kb="handbook", source=source))
    assert "twenty weeks" in html
    (handbook / "leave.md").unlink()
    assert not has_button(opened("knowledge", kb="handbook", source=source), "Read again")


def test_failures_have_reasons_can_be_tried_again_and_taken_off_the_list(home, handbook):
    test = part(opened("knowledge", kb="handbook"), "failures")
    assert list(test.dataframe[-1].value["file"]) == ["torn.pdf"]
    assert test.dataframe[-1].value["reason"][0].startswith("damaged")
    (handbook / "torn.pdf").write_bytes(b"")
    button(test, "Try all again").click().run()
    finished(home, "handbook")
    test = part(opened("knowledge", kb="handbook", lang="zh"), "failures")
    assert test.dataframe[-1].value["reason"][0].startswith("空文件")
    assert not has_button(test, "从列表移除")


# ---------------------------------------------------------------- figures and pictures


def test_statistics_count_documents_formats_and_languages(home, handbook):
    test = part(opened("knowledge", kb="handbook"), "overview")
    html = shown(test)
    assert "<b>3</b><span>Documents</span>" in html
    assert "<b>1</b><span>Not readable</span>" in html
    assert len(test.get("vega_lite_chart") or test.get("arrow_vega_lite_chart")) == 3


def test_a_check_reports_that_all_is_well_and_what_is_not(home, handbook):
    test = part(opened("knowledge", kb="handbook"), "overview")
    test = button(test, "Check everything").click().run()
    assert "All is as it should be." in shown(test)
    kb = KnowledgeBase.open("handbook", embeddings=WordEmbeddings())
    with kb, kb._database.write() as connection:
        connection.execute("UPDATE chunks SET text = 'forged' WHERE chunk_index = 0")
    test = button(test, "Check everything").click().run()
    assert "not as" in shown(test)


def test_the_map_shows_passages_and_a_questions_hits(home, handbook):
    test = part(opened("knowledge", kb="handbook"), "map")
    assert "3 passages" in shown(test)
    test.text_input(key="kb-map-question").set_value("parental leave weeks").run()
    assert not test.exception
    test.text_input(key="kb-map-question").set_value("thanks").run()
    assert "Nothing is found for this." in shown(test)


def test_a_map_of_nothing_says_so(home):
    with KnowledgeBase.open("empty", create=True, embeddings=WordEmbeddings()):
        pass
    test = opened("knowledge", kb="empty")
    assert "at least three passages" in shown(part(test, "map"))
    assert "This knowledge base is empty" in shown(part(test, "documents"))
    assert "Every file could be read." in shown(part(test, "failures"))
    assert "<b>0</b><span>Documents</span>" in shown(part(test, "overview"))
