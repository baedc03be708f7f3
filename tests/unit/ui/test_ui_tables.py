"""Documents as rows, counts and charts."""

import json
from dataclasses import replace

import numpy as np
import pytest

import ui_fakes
from glm_rag.knowledge.sampling import Sketch
from glm_rag.types import IngestFailure
from glm_rag_ui import charts, tables
from glm_rag_ui.i18n import translator

EN, ZH = translator("en"), translator("zh")


def info(title="Title", name="file.md", **changes):
    return replace(ui_fakes.document_info(name), title=title, **changes)


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [
        ("application/pdf", "PDF"),
        ("text/markdown", "Markdown"),
        ("text/x-python", "Python"),
        ("text/x-cpp", "C++"),
        ("application/x-unheard-of", "application/x-unheard-of"),
    ],
)
def test_a_format_has_a_short_name(media_type, kind):
    assert tables.kind_of(info(media_type=media_type)) == kind


def test_every_word_of_the_filter_must_stand_in_title_or_file_name():
    documents = [info("Parental Leave", "hr-2024.md"), info("網路政策", "net.md"), info("Leave")]
    assert tables.filtered(documents, "leave HR") == documents[:1]
    assert tables.filtered(documents, "网路") == documents[1:2]
    assert tables.filtered(documents, "ＬＥＡＶＥ") == [documents[0], documents[2]]
    assert tables.filtered(documents, "  ") == documents
    assert tables.filtered(documents, "", ["zh"]) == []
    assert tables.filtered(documents, "", [], ["Text"]) == documents
    assert tables.filtered(documents, "", [], ["PDF"]) == []


def test_cells_are_one_line_without_direction_marks():
    assert tables.cell("a\nb\t<b> \u202egnp.exe\x00") == "a b <b> \ufffdgnp.exe\ufffd"
    rows = tables.document_rows([info("a\nb", "x%0Ay.md")], EN)
    assert rows["title"] == ["a b"]
    assert rows["file"] == ["x y.md"]


def test_reasons_of_failures_are_in_the_readers_language():
    failed = [IngestFailure("file:///srv/docs/a%20b.pdf", "load", "encrypted: x", True)]
    assert tables.failure_rows(failed, ZH) == {
        "file": ["a b.pdf"],
        "reason": ["有密码保护: x"],
        "folder": ["/srv/docs"],
    }


def test_formats_beyond_the_most_frequent_are_counted_together():
    documents = [info(media_type=f"text/x-{n}") for n in "aabbbcde"]
    assert tables.kinds(documents, 2, EN) == [("B", 3), ("A", 2), ("Others", 3)]
    assert sum(count for _, count in tables.kinds(documents, 99, EN)) == 8


def test_every_document_is_in_one_step_of_passages():
    counts = [0, 1, 2, 3, 4, 5, 9, 10, 999, 1000, 5000]
    steps = tables.passages_per_document([info(num_chunks=n) for n in counts])
    assert sum(count for _, count in steps) == len(counts)
    assert dict(steps)["3–4"] == 2
    assert dict(steps)["≥ 1,000"] == 2
    assert steps[0] == ("0", 1)
    assert tables.passages_per_document([]) == []


# ---------------------------------------------------------------- charts

WORDS = {"document": "D", "passage": "P", "page": "S", "others": "Others", "hit": "H"}


def sketch(source, title="Title", text="text"):
    return Sketch(f"{source}{text}", source, title, None, text)


def test_ten_documents_have_a_colour_and_the_others_are_grey():
    sketches = [sketch(f"s{n}", f"T{n}") for n in range(14) for _ in range(20 - n)]
    places = np.zeros((len(sketches), 2))
    chart = charts.passage_map(sketches, places, [], WORDS)
    scale = chart["layer"][0]["encoding"]["color"]["scale"]
    assert scale["domain"] == [*(f"T{n}" for n in range(10)), "Others"]
    assert len(set(scale["range"])) == 11
    assert scale["range"][-1] == charts.GREY


def test_documents_of_one_title_are_told_apart():
    names = charts.group_names(
        [sketch("a", "Same"), sketch("b", "Same"), sketch("c", "Others")], "Others"
    )
    assert sorted(names.values()) == ["Others (2)", "Same", "Same (2)"]


def test_hits_are_numbered_on_top_of_all_passages():
    sketches = [sketch(f"s{n}") for n in range(5)]
    hits = [(sketches[3], np.array([1.0, 2.0])), (sketches[1], np.array([3.0, 4.0]))]
    chart = charts.passage_map(sketches, np.zeros((5, 2)), hits, WORDS)
    marked = chart["layer"][1]["data"]["values"]
    assert [(row["rank"], row["x"], row["y"]) for row in marked] == [(1, 1.0, 2.0), (2, 3.0, 4.0)]


def test_hostile_text_stays_a_short_value():
    text = "<img src=x onerror=alert(1)>\u202e" * 50
    chart = charts.passage_map([sketch("s", text, text)], np.zeros((1, 2)), [], WORDS)
    row = chart["data"]["values"][0]
    assert len(row["title"]) <= 40
    assert len(row["beginning"]) <= 110
    assert "\u202e" not in json.dumps(chart, ensure_ascii=False)


def test_bars_keep_their_order_and_their_numbers():
    chart = charts.bars([("b", 3), ("a", 10)], "Kind", "Documents")
    data = chart["data"]["values"]
    assert [(row["name"], row["count"]) for row in data] == [("b", 3), ("a", 10)]
    assert chart["encoding"]["y"]["sort"] is None
