"""Files into a knowledge base from the page: uploads, folders of the server, progress, stop."""

import time

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("faiss")

from library import (
    CANTEEN,
    LEAVE,
    button,
    documents,
    finished,
    has_button,
    opened,
    part,
    shown,
    source_of,
    typed,
    upload,
)

from glm_rag.config import load_config
from glm_rag.knowledge.base import list_knowledge_bases
from glm_rag_ui import runs, uploads

pytestmark = pytest.mark.usefixtures("words")


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


def test_two_files_of_one_name_chosen_together_do_not_replace_each_other(home):
    files = [("a.md", LEAVE.encode()), ("a.md", CANTEEN.encode())]
    upload(opened("knowledge", kb="fresh"), *files)
    assert finished(home, "fresh").report.num_added == 2


def test_a_file_of_a_known_name_replaces_its_earlier_version(home):
    upload(opened("knowledge", kb="fresh"), ("a.md", LEAVE.encode()))
    finished(home, "fresh")
    upload(part(opened("knowledge", kb="fresh"), "add"), ("a.md", CANTEEN.encode()))
    assert finished(home, "fresh").report.num_updated == 1
    assert documents("fresh") == 1


def test_a_run_goes_on_without_its_tab_and_every_visitor_sees_it(home, words):
    words.gate.clear()
    upload(opened("knowledge", kb="fresh"), ("a.md", LEAVE.encode()))
    other = opened("knowledge", kb="fresh")
    assert has_button(other, "Stop")
    chinese = opened("knowledge", kb="fresh", lang="zh")
    assert has_button(chinese, "停止")
    upload(other, ("b.md", CANTEEN.encode()))
    words.gate.set()
    run = finished(home, "fresh")
    assert len(run.batches) == 2
    assert documents("fresh") == 2
    later = opened("knowledge", kb="fresh")
    assert "2 added" in shown(later)
    assert not has_button(later, "Stop")
    assert "2 added" not in shown(button(later, "Close").click().run())


def test_a_stopped_run_keeps_what_is_finished_and_goes_on(home, words, folder):
    for number in range(12):
        (folder / f"{number}.txt").write_text(f"Line {number} of the report. " * 400)
    words.gate.clear()
    runs.SHARED.add("fresh", runs.Batch(load_config(), (folder,)))
    run = runs.SHARED.get(home, "fresh")
    until(lambda: run.progress is not None and run.progress.current)
    test = opened("knowledge", kb="fresh")
    test = button(test, "Stop").click().run()
    words.gate.set()
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


def test_a_known_file_that_became_a_link_out_is_not_read_again(home, folder, tmp_path, monkeypatch):
    secret = tmp_path / "secret.md"
    secret.write_text("The secret word is swordfish.")
    (folder / "fine.md").write_text(CANTEEN)
    allow(monkeypatch, folder)
    test = read_folder(opened("knowledge", kb="fresh"), folder)
    finished(home, "fresh")
    (folder / "fine.md").unlink()
    (folder / "fine.md").symlink_to(secret)
    test.query_params["source"] = source_of("fresh", "fine.md")
    button(part(test.run(), "documents"), "Read again").click().run()
    assert len(finished(home, "fresh").report.failures) == 1


def test_going_on_keeps_the_bounds_of_each_batch(home, words, folder, tmp_path, monkeypatch):
    (tmp_path / "secret.md").write_text("The secret word is swordfish.")
    (folder / "fine.md").write_text(CANTEEN)
    (folder / "link.md").symlink_to(tmp_path / "secret.md")
    allow(monkeypatch, folder)
    (tmp_path / "a.md").write_text(LEAVE)
    settings = load_config()
    words.gate.clear()
    run = runs.SHARED.add(
        "fresh",
        runs.Batch(settings, (folder,), within=(folder,)),
        runs.Batch(settings, (tmp_path / "a.md",)),
    )
    until(lambda: run.progress is not None and run.progress.current)
    test = button(opened("knowledge", kb="fresh"), "Stop").click().run()
    words.gate.set()
    finished(home, "fresh")
    button(test.run(), "Go on").click().run()
    run = finished(home, "fresh")
    assert [bool(batch.within) for batch in run.batches] == [True, False]
    assert documents("fresh") == 2
