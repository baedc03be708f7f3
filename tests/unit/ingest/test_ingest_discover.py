"""Discovery finds every document once, in order, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from glm_rag.errors import ConfigError
from glm_rag_ingest.discover import discover
from glm_rag_ingest.prune import path_of, vanished
from glm_rag_ingest.selection import Selection


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "docs"
    for name in (
        "b.txt",
        "a.txt",
        "sub/c.md",
        "文件/员工 手册.md",
        ".hidden.txt",
        ".git/config",
        "node_modules/x.md",
        "sub/__pycache__/x.txt",
        "~$report.docx",
        ".DS_Store",
        "Thumbs.db",
    ):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return root


def names(found):
    return [file.path.name for file in found.files]


def test_folders_are_walked_in_order_without_hidden_files_and_junk(tree):
    found = discover([tree])
    assert names(found) == ["a.txt", "b.txt", "c.md", "员工 手册.md"]
    assert not found.failures
    assert found.files[0].source == (tree / "a.txt").as_uri()
    assert found.files[0].size == len("a.txt")


def test_a_file_named_twice_is_found_once(tree, monkeypatch):
    monkeypatch.chdir(tree)
    link = tree.parent / "link.txt"
    link.symlink_to(tree / "a.txt")
    assert names(discover([tree, tree / "a.txt", link, "a.txt"])) == names(discover([tree]))


def test_what_is_named_is_taken_even_if_hidden(tree):
    assert names(discover([tree / ".hidden.txt"])) == [".hidden.txt"]


def test_links_are_followed_and_loops_end(tree, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "d.txt").write_text("d")
    (tree / "linked").symlink_to(other)
    (tree / "sub" / "up").symlink_to(tree)
    (other / "back").symlink_to(tree)
    assert names(discover([tree])) == ["a.txt", "b.txt", "c.md", "员工 手册.md", "d.txt"]


def test_what_is_not_there_is_a_failure(tree):
    (tree / "broken.txt").symlink_to(tree / "nowhere.txt")
    found = discover([tree, tree / "missing.txt"])
    assert [(f.stage, f.permanent) for f in found.failures] == [("discover", False)] * 2
    assert "symbolic link" in found.failures[0].error
    assert "no such file or folder" in found.failures[1].error
    assert found.failures[1].source == (tree / "missing.txt").as_uri()
    assert len(found.files) == 4


def test_a_folder_that_may_not_be_read_is_a_failure(tree, monkeypatch):
    real = os.scandir

    def scandir(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = discover([tree])
    assert [f.error for f in found.failures] == ["unreadable: permission denied"]
    assert "c.md" not in names(found)
    assert "a.txt" in names(found)


def test_pipes_are_skipped_in_folders_and_refused_by_name(tree):
    os.mkfifo(tree / "pipe.txt")
    assert "pipe.txt" not in names(discover([tree]))
    found = discover([tree / "pipe.txt"])
    assert not found.files
    assert "neither a file nor a folder" in found.failures[0].error


def test_names_that_are_not_utf8_are_found(tree):
    raw = os.fsencode(tree) + b"/\xff\xfe.txt"
    with open(raw, "wb") as file:  # noqa: PTH123 - a name in bytes
        file.write(b"x")
    found = [file for file in discover([tree]).files if "%FF%FE" in file.source]
    assert len(found) == 1
    assert path_of(found[0].source) == found[0].path


def test_sources_and_paths_are_each_others_inverse(tree):
    for file in discover([tree]).files:
        assert path_of(file.source) == file.path
    assert path_of("text:abc") is None
    assert path_of("https://example.org/a") is None


def test_only_files_that_are_gone_have_vanished(tree):
    sources = [file.source for file in discover([tree]).files] + ["text:abc"]
    (tree / "a.txt").unlink()
    elsewhere = (tree.parent / "elsewhere.txt").as_uri()
    assert vanished(discover([tree]), [*sources, elsewhere]) == ([sources[0]], [])
    assert vanished(discover([tree / "sub"]), sources) == ([], [])


def test_an_empty_folder_is_taken_for_a_missing_disk(tree):
    sources = [file.source for file in discover([tree]).files]
    for file in discover([tree]).files:
        file.path.unlink()
    gone, warnings = vanished(discover([tree]), sources)
    assert gone == []
    assert "nothing was pruned" in warnings[0]


def test_an_empty_folder_below_a_named_one_may_be_a_missing_disk_and_a_removed_one_is_none(tree):
    disk = tree / "disk"
    disk.mkdir()
    (disk / "on-disk.txt").write_text("a text")
    sources = [file.source for file in discover([tree]).files]
    (disk / "on-disk.txt").unlink()
    gone, (warning,) = vanished(discover([tree]), sources)
    assert gone == []
    assert warning.startswith(f"{disk} is empty: its documents stay")
    disk.rmdir()
    assert vanished(discover([tree]), sources) == ([(disk / "on-disk.txt").as_uri()], [])


def test_a_link_to_itself_that_is_named_is_a_failure(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    found = discover([tmp_path / "loop"])
    assert [failed.error for failed in found.failures] == [
        "unreadable: too many levels of symbolic links"
    ]


def test_a_lock_file_that_is_named_is_no_home_folder(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert [file.path.name for file in discover([Path("~$report.docx")]).files] == ["~$report.docx"]


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("*.md", ["a.md", "x/a.md", "x.md/b"], ["a.mdx", "md"]),
        ("/*.md", ["a.md"], ["x/a.md"]),
        ("x/*.md", ["x/a.md"], ["y/x/a.md", "x/y/a.md"]),
        ("**/x/*", ["x/a", "y/x/a", "y/z/x/a"], ["x"]),
        ("x/**", ["x/a", "x/y/a"], ["y/x/a", "x"]),
        ("x/**/a", ["x/a", "x/y/a", "x/y/z/a"], ["x/ba"]),
        ("drafts", ["drafts", "drafts/a", "x/drafts/a"], ["drafts2/a"]),
        ("drafts/", ["drafts/a", "x/drafts/y/a"], ["drafts"]),
        ("/drafts/", ["drafts/a"], ["x/drafts/a"]),
        ("?.txt", ["a.txt", "文.txt"], ["ab.txt", ".txt"]),
        ("[a-c]1", ["a1", "x/b1"], ["d1"]),
        ("[!a]1", ["b1"], ["a1"]),
        ("[^a]1", ["b1", "^1"], ["a1"]),
        ("[a^]1", ["a1", "^1"], ["b1"]),
        ("a[1", ["a[1"], ["a1"]),
        ("a+(b).txt", ["a+(b).txt"], ["aab.txt"]),
        ("./a", ["a", "x/a"], []),
        ("a\nb", ["a\nb"], ["ab"]),
    ],
)
def test_patterns_mean_what_they_mean_in_gitignore(pattern, matches, others):
    selection = Selection.of(include=[pattern])
    assert [path for path in [*matches, *others] if selection.takes(path)] == matches
    without = Selection.of(exclude=[pattern])
    assert [path for path in [*matches, *others] if without.takes(path)] == others


def test_exclude_wins_over_include_and_folders_are_not_entered(tree, monkeypatch):
    chosen = Selection.of(["*.md", "/b.txt"], ["文件/"])
    entered = []
    real = os.scandir

    def scandir(path):
        entered.append(str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert names(discover([tree], chosen)) == ["b.txt", "c.md"]
    assert str(tree / "文件") not in entered
    assert names(discover([tree / "a.txt"], chosen)) == []


@pytest.mark.parametrize("pattern", ["", " ", "/", "!a", "[z-a]"])
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(ConfigError, match="pattern"):
        Selection.of(exclude=[pattern])


def test_names_of_any_bytes_and_length_are_found(tmp_path):
    names_there = [b"line\nbreak.txt", b"\xff\xfe.txt", b"a#b?c%20.txt", b"n" * 251 + b".txt"]
    for name in names_there:
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:  # noqa: PTH123 - bytes
            file.write(b"x")
    found = discover([tmp_path])
    assert sorted(os.fsencode(file.path.name) for file in found.files) == sorted(names_there)
    for file in found.files:
        assert path_of(file.source) == file.path
        assert file.source == file.path.as_uri()


def test_a_folder_of_very_many_files_is_found_whole(tmp_path):
    for number in range(5000):
        (tmp_path / f"{number}.txt").touch()
    assert len(discover([tmp_path]).files) == 5000
