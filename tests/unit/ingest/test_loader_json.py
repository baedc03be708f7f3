"""JSON, JSON Lines and notebooks become readable text without losing a value."""

from __future__ import annotations

import json

import pytest

from glm_rag.errors import DocumentError

# ---------------------------------------------------------------- JSON


def test_values_come_with_the_path_of_their_keys(read):
    data = '{"title": "Rules", "a": {"b c": "x", "d": [1, 2]}, "e": null, "f": true, "g": "1\\n2"}'
    document = read("a.json", data)
    assert document.title == "Rules"
    assert document.text == "title: Rules\na.b c: x\na.d: 1, 2\ne: null\nf: true\ng:\n1\n2"


def test_numbers_stand_as_they_are_written(read):
    data = '{"a": 1.10, "b": 123456789012345678901234567890, "c": 1e400, "d": NaN, "e": -Infinity}'
    assert read("a.json", data).text.split("\n") == [
        "a: 1.10",
        "b: 123456789012345678901234567890",
        "c: 1e400",
        "d: NaN",
        "e: -Infinity",
    ]


def test_a_list_of_flat_records_is_a_table(read):
    data = json.dumps({"people": [{"name": "Ann", "age": 3}, {"name": "Bob", "town": None}]})
    rows = "| name | age | town |\n| --- | --- | --- |\n| Ann | 3 |  |\n| Bob |  | null |"
    assert read("a.json", data).text == f"people:\n\n{rows}"


def test_records_with_long_texts_are_paragraphs(read):
    records = [{"id": i, "text": f"{i} " + "word " * 60} for i in range(2)]
    lines = "\n".join(map(json.dumps, records))
    for name, data in (("a.jsonl", lines), ("b.json", json.dumps(records))):
        first, second = read(name, data).text.split("\n\n")
        assert first.startswith("id: 0\ntext: 0 word")
        assert second.startswith("id: 1\ntext: 1 word")


def test_nested_records_carry_their_number(read):
    data = json.dumps({"steps": [{"do": {"x": 1}}, {"do": {"x": 2}}]})
    assert read("a.json", data).text == "steps[1].do.x: 1\n\nsteps[2].do.x: 2"


def test_broken_json_says_where(read):
    with pytest.raises(DocumentError, match=r"^corrupt: not JSON: .* in line 2, column 6$"):
        read("a.json", '{"a": 1,\n "b" 2}')


def test_a_broken_line_of_json_lines_costs_that_line_only(read):
    lines = ['{"id": 1}', '{"id": 2', "", '{"id": 3}', '{"id": 4}']
    document = read("a.jsonl", "\n".join(lines))
    assert document.text == "| id |\n| --- |\n| 1 |\n| 3 |\n| 4 |"
    assert len(document.warnings) == 1
    assert document.warnings[0].startswith("line 2: not JSON: ")


@pytest.mark.parametrize(
    "bomb", ["[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000, "[" * 500 + "]" * 500]
)
def test_depth_is_refused(reason_of, bomb):
    assert reason_of("a.json", bomb) == "unsupported"


def test_an_integer_of_many_digits_is_no_trouble(read):
    assert read("a.json", '{"n": ' + "9" * 10_000 + "}").text == "n: " + "9" * 10_000


# ---------------------------------------------------------------- notebooks


def notebook(*cells, **more):
    return json.dumps({"nbformat": 4, "metadata": {}, "cells": list(cells), **more})


def test_a_notebook_reads_as_prose_code_and_output(read):
    data = notebook(
        {
            "cell_type": "markdown",
            "source": ["# The title\n", "Prose ![x](data:image/png;base64,A)"],
        },
        {
            "cell_type": "code",
            "source": "# a comment\nprint('```')",
            "outputs": [
                {"output_type": "stream", "text": ["one\n", "\x1b[31mtwo\x1b[0m"]},
                {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo="}},
                {"output_type": "error", "ename": "ValueError", "evalue": "bad"},
            ],
        },
        metadata={"kernelspec": {"language": "julia"}},
    )
    document = read("a.ipynb", data)
    assert document.title == "The title"
    assert document.text == (
        "# The title\nProse x\n\n````julia\n# a comment\nprint('```')\n````\n\n"
        "```text\none\ntwo\nValueError: bad\n```"
    )


def test_long_output_is_cut(read):
    output = {"output_type": "stream", "text": "z" * 10_000}
    data = notebook({"cell_type": "code", "source": "run()", "outputs": [output]})
    assert read("a.ipynb", data).text.count("z") == 2000


def test_a_notebook_of_format_3_is_read(read):
    cells = [
        {"cell_type": "heading", "level": 2, "source": "Part"},
        {"cell_type": "code", "input": "1 + 1", "outputs": [{"output_type": "pyout", "text": "2"}]},
    ]
    text = read("a.ipynb", json.dumps({"nbformat": 3, "worksheets": [{"cells": cells}]})).text
    assert text == "## Part\n\n```python\n1 + 1\n```\n\n```text\n2\n```"


@pytest.mark.parametrize("data", ["{", "[]", '{"cells": 3}'])
def test_what_is_no_notebook_is_corrupt(reason_of, data):
    assert reason_of("a.ipynb", data) == "corrupt"


@pytest.mark.parametrize(
    "data", ['{"cells": [null, {"cell_type": 1, "source": {"a": 1}, "outputs": 3}]}']
)
def test_a_notebook_of_nonsense_has_no_text(reason_of, data):
    assert reason_of("a.ipynb", data) == "empty"
