"""The page of knowledge bases in process, over real knowledge bases."""

import time

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("faiss")

from library import button, finished, has_button, opened, part, shown, typed

from glm_rag.config import load_config
from glm_rag.knowledge.base import KnowledgeBase, list_knowledge_bases
from glm_rag_ingest.pipeline import ingest
from glm_rag_ui import runs, uploads
from word_embeddings import WordEmbeddings

LEAVE = "# Parental leave\n\nEvery parent may take sixteen weeks of leave with full pay.\n"
CANTEEN = "# Canteen\n\nLunch is served from noon to two on the ground floor.\n"
CHINESE = "# 员工手册\n\n员工每年有二十天带薪年假，未休完的可以结转到次年三月。\n"
HOSTILE = (
    "# <script>window.hacked = 1</script> **b** $x$ :smile:\n\n"
    "<img src=x onerror='window.hacked = 1'> ![p](http://evil.example/p.png) \u202egnp.exe\n"
)


@pytest.fixture(autouse=True)
def embeddings(monkeypatch):
    import streamlit

    words = WordEmbeddings()
    monkeypatch.setattr("glm_rag.build.build_embeddings", lambda _settings: words)
    streamlit.cache_resource.clear()
    yield words
    words.gate.set()
    streamlit.cache_resource.clear()


@pytest.fixture
def folder(tmp_path):
    """Files of a user."""
    files = tmp_path / "files"
    files.mkdir()
    return files


@pytest.fixture
def handbook(home, folder):
    """A knowledge base with three documents and one file that cannot be read."""
    for name, text in (("leave.md", LEAVE), ("canteen.txt", CANTEEN), ("手册.md", CHINESE)):
        (folder / name).write_text(text, "utf-8")
    (folder / "torn.pdf").write_bytes(b"%PDF-1.7 torn")
    report = ingest([folder], "handbook", config=load_config())
    assert (report.num_added, len(report.failures)) == (3, 1)
    return folder


def source_of(kb: str, ending: str) -> str:
    with KnowledgeBase.open(kb, embeddings=WordEmbeddings()) as found:
        return next(s for s in found.known_sources() if s.endswith(ending))


def documents(kb: str) -> int:
    with KnowledgeBase.open(kb, embeddings=WordEmbeddings()) as found:
        return found.info().num_documents


def titles(test) -> list[str]:
    return list(test.dataframe[-1].value["title"])


def dialog(test, label: str):
    return button(test, label).click().run()


def answer(test, text: str, label: str):
    """Fill the dialog's only field and send it."""
    field = test.text_input[-1]
    field.set_value(text)
    return next(b for b in reversed(test.button) if b.label == label).click().run()


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


def test_a_name_that_is_taken_is_refused(home, handbook):
    test = dialog(opened("knowledge", kb="other"), "New knowledge base")
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


# ---------------------------------------------------------------- adding


def upload(test, *files):
    test.file_uploader[-1].set_value([(name, data, "text/plain") for name, data in files])
    return test.run()


def test_many_files_go_in_and_a_broken_one_has_its_reason(home):
    test = opened("knowledge", kb="fresh")
    files = [
        (f"{n}.md", f"# Note {n}\n\nThis is the note number {n}.\n".encode()) for n in range(5)
    ]
    test = upload(test, *files, ("torn.pdf", b"%PDF-1.7 torn"))
    finished(home, "fresh")
    test = test.run()
    assert "5 added · 1 not readable" in shown(test)
    assert "damaged" in shown(test)
    assert documents("fresh") == 5
    assert not test.file_uploader or not test.file_uploader[-1].value
    kept = sorted(path.name for path in uploads.folder(home, "fresh").iterdir())
    assert kept == [*(f"{n}.md" for n in range(5)), "torn.pdf"]


def test_a_run_goes_on_without_its_tab_and_every_visitor_sees_it(home, embeddings):
    embeddings.gate.clear()
    upload(opened("knowledge", kb="fresh"), ("a.md", LEAVE.encode()))
    other = opened("knowledge", kb="fresh")
    assert has_button(other, "Stop")
    chinese = opened("knowledge", kb="fresh", lang="zh")
    assert has_button(chinese, "停止")
    upload(other, ("b.md", CANTEEN.encode()))
    embeddings.gate.set()
    run = finished(home, "fresh")
    assert len(run.batches) == 2
    assert documents("fresh") == 2
    later = opened("knowledge", kb="fresh")
    assert "2 added" in shown(later)
    assert not has_button(later, "Stop")
    assert "2 added" not in shown(button(later, "Close").click().run())


def test_a_stopped_run_keeps_what_is_finished_and_goes_on(home, embeddings, folder):
    for number in range(12):
        (folder / f"{number}.txt").write_text(f"Line {number} of the report. " * 400)
    embeddings.gate.clear()
    runs.SHARED.add("fresh", runs.Batch(load_config(), (folder,)))
    run = runs.SHARED.get(home, "fresh")
    until(lambda: run.progress is not None and run.progress.current)
    test = opened("knowledge", kb="fresh")
    test = button(test, "Stop").click().run()
    embeddings.gate.set()
    assert run.wait(60)
    assert run.report.interrupted
    test = test.run()
    assert "Stopped." in shown(test)
    before = documents("fresh")
    assert before < 12
    button(test, "Go on").click().run()
    finished(home, "fresh")
    assert documents("fresh") == 12


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def allow(monkeypatch, *folders):
    listed = ", ".join(f'"{folder}"' for folder in folders)
    monkeypatch.setenv("GLM_RAG_UI__ALLOWED_FOLDERS", f"[{listed}]")


def read_folder(test, path):
    box = next(item for item in test.selectbox if item.label == "A folder of this computer")
    typed(box, str(path))
    return button(test, "Read the folder").click().run()


def test_without_allowed_folders_the_page_says_how_to_allow_one(home):
    html = shown(opened("knowledge", kb="fresh"))
    assert "allowed_folders" in html
    assert "No folder may be read from the page." in html


def test_an_allowed_folder_is_read(home, folder, monkeypatch):
    (folder / "sub").mkdir()
    (folder / "sub" / "leave.md").write_text(LEAVE)
    allow(monkeypatch, folder)
    read_folder(opened("knowledge", kb="fresh"), folder / "sub")
    assert finished(home, "fresh").report.num_added == 1


@pytest.mark.parametrize("way", ["outside", "dots", "link", "prefix", "nothing", "missing"])
def test_a_folder_outside_the_allowed_ones_is_refused(home, folder, tmp_path, monkeypatch, way):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "secret.md").write_text(LEAVE)
    (tmp_path / "files-too").mkdir()
    (folder / "link").symlink_to(secret)
    path = {
        "outside": secret,
        "dots": f"{folder}/../secret",
        "link": folder / "link",
        "prefix": tmp_path / "files-too",
        "nothing": " ",
        "missing": folder / "none",
    }[way]
    allow(monkeypatch, folder)
    html = shown(read_folder(opened("knowledge", kb="fresh"), path))
    expected = "There is no such folder" if way == "missing" else "This folder may not be read."
    assert expected in html
    assert runs.SHARED.get(home, "fresh") is None
    assert list_knowledge_bases(home) == []


def test_links_inside_an_allowed_folder_do_not_lead_out(home, folder, tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "secret.md").write_text(LEAVE)
    (folder / "fine.md").write_text(CANTEEN)
    (folder / "folder").symlink_to(secret)
    (folder / "file.md").symlink_to(secret / "secret.md")
    allow(monkeypatch, folder)
    read_folder(opened("knowledge", kb="fresh"), folder)
    report = finished(home, "fresh").report
    assert report.num_added == 1
    assert {failed.error for failed in report.failures} == {
        "unreadable: outside the folders that may be read"
    }
    assert documents("fresh") == 1


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
    assert list(uploads.folder(home, "fresh").iterdir()) == []


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
