"""Source code keeps its lines and says its language."""

from __future__ import annotations

import pytest

from glm_rag.errors import DocumentError
from glm_rag_ingest.loaders import load


@pytest.fixture
def read(tmp_path):
    def write_and_load(name, data):
        path = tmp_path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return load(path).documents[0]

    return write_and_load


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("a.py", "python"),
        ("a.tsx", "typescript"),
        ("a.HPP", "cpp"),
        ("a.go", "go"),
        ("Dockerfile", "dockerfile"),
        ("Makefile", "makefile"),
        ("a.yml", "yaml"),
        ("a.sql", "sql"),
    ],
)
def test_the_language_is_in_the_media_type(read, name, language):
    document = read(name, "x = 1\n")
    assert document.media_type == f"text/x-{language}"
    assert document.title == name


def test_a_script_without_an_extension_is_code(read):
    assert read("deploy", "#!/bin/sh\nls\n").media_type == "text/x-shell"


def test_indentation_and_comments_stay(read):
    code = "def f(x):\n    # 中文注释\n    if x:\n\treturn {\n\n        'a': 1,\n    }"
    assert read("a.py", code + "\r\n").text == code


def test_a_coding_cookie_is_believed(read):
    code = "# -*- coding: gbk -*-\nname = '李'\n"
    assert read("a.py", code.encode("gbk")).text == code.strip()
    xml = '<?xml version="1.0" encoding="euc-kr"?>\n<a>한</a>'
    assert read("a.xml", xml.encode("euc-kr")).text == xml


def test_gbk_comments_without_a_cookie_read_right(read):
    code = "int main() {\n  return 0;  // 返回值为零，表示程序正常结束\n}"
    assert read("a.c", code.encode("gbk")).text == code


def test_markup_in_code_is_code_and_binary_data_is_not(read):
    page = "<!DOCTYPE html>\n<html><?php echo 1; ?></html>"
    assert read("a.php", page).text == page
    assert read("a.php", page).media_type == "text/x-php"
    with pytest.raises(DocumentError, match=r"^corrupt: "):
        read("a.c", b"\x7fELF\x02\x01\x01\0\0\0" + bytes(range(256)) * 4)
