"""Uploads land under safe names inside the data folder, whole or not at all."""

from dataclasses import dataclass

import pytest

from glm_rag.errors import ConfigError
from glm_rag.knowledge.uploads import hand_over, safe_name, uploads_of
from glm_rag_ui import uploads


@dataclass
class Upload:
    name: str
    data: bytes = b"text"

    def getvalue(self) -> bytes:
        return self.data


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("report.pdf", "report.pdf"),
        ("员工手册 (2).docx", "员工手册 (2).docx"),
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\a.txt", "a.txt"),
        (".bashrc", "bashrc"),
        ("..", "document"),
        ("", "document"),
        ("a\x00b\u202etxt.exe.md", "a b txt.exe.md"),
        ('<img src="x">.html', "img src= x.html"),
    ],
)
def test_safe_name_is_one_harmless_component(name, safe):
    assert safe_name(name) == safe


@pytest.mark.parametrize("name", ["很" * 300 + ".pdf", "a" * 300, "x." + "e" * 300, "." * 300])
def test_long_names_fit_the_file_system(name, tmp_path):
    safe = safe_name(name)
    assert 0 < len(safe.encode()) <= 150
    (tmp_path / safe).write_bytes(b"")


def test_the_ending_survives_cutting():
    assert safe_name("很" * 300 + ".pdf").endswith("很.pdf")


def test_the_same_name_replaces_the_file(tmp_path):
    uploads.save(Upload("a.txt", b"old"), tmp_path / "kb")
    path = uploads.save(Upload("a.txt", b"new"), tmp_path / "kb")
    assert path.read_bytes() == b"new"
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def test_a_failed_upload_leaves_nothing_behind(tmp_path):
    class Broken(Upload):
        def getvalue(self):
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        uploads.save(Broken("a.txt"), tmp_path / "kb")
    assert list((tmp_path / "kb").iterdir()) == []


@pytest.mark.parametrize("kb", ["..", "../x", "a/b", "", "/etc", ".hidden", "a\x00b"])
def test_a_knowledge_base_name_cannot_lead_out_of_the_data_folder(kb, tmp_path):
    with pytest.raises(ConfigError):
        uploads.folder(tmp_path, kb)


def test_every_knowledge_base_has_its_own_folder(tmp_path):
    assert uploads.folder(tmp_path, "手册") == tmp_path / "uploads" / "手册"


def test_uploads_stay_with_a_renamed_knowledge_base_and_the_old_name_gets_another_folder(tmp_path):
    first = uploads.folder(tmp_path, "old")
    first.mkdir(parents=True)
    hand_over([first], "new")
    assert uploads.folder(tmp_path, "new") == first
    second = uploads.folder(tmp_path, "old")
    assert second != first
    assert uploads.folder(tmp_path, "old") == second
    assert uploads_of("old", tmp_path) == [second]
    assert uploads.folder(tmp_path, second.name) not in {first, second}
