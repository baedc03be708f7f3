"""The planning page says what the script computes from the stored measurements."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import scaling
from support.record import RESULTS
from support.scaling_model import Assumptions, Measured, cost_of_answers, plan
from support.scaling_tables import CROWDS, SIZES, tables

MEASURED = Measured.read(RESULTS)
USUAL = Assumptions()


def test_the_page_holds_what_the_script_prints():
    page = scaling.PAGE.read_text(encoding="utf-8")
    shown = page.partition(scaling.BEGIN)[2].partition(scaling.END)[0]
    assert shown == tables(MEASURED, USUAL), "run python benchmarks/scaling.py --write"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("ingest_throughput", ("bytes_per_chunk",)),
        ("ingest_throughput", ("machine", "cores")),
        ("knowledge_scale", ("bytes_per_chunk", "snapshot")),
        ("knowledge_scale", ("search", "p50_ms")),
        ("knowledge_scale", ("question", "eight_words", "p50_ms")),
        ("question_latency", ("rows", "XQuAD, en", "p50_ms")),
        ("engine_vs_llama_cpp", ("medians", "glm-rag", "decode at 0")),
        ("gpu_engine", ("rows", 0, "prefill 512")),
        ("concurrent_streams_cuda", ("rows", 1, "tok/s")),  # one answer
        ("concurrent_streams_cuda", ("rows", 3, "tok/s")),  # most together
        ("answers_xquad", ("rows", 0, "tokens read (median)")),
    ],
)
def test_another_measurement_gives_another_page(tmp_path, name, path):
    folder = shutil.copytree(RESULTS, tmp_path / "results")
    result = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    place = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] *= 2
    (folder / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
    assert tables(Measured.read(folder), USUAL) != tables(MEASURED, USUAL)


def test_every_assumption_counts():
    for name in Assumptions.__dataclass_fields__:
        value = getattr(USUAL, name)
        changed = replace(USUAL, **{name: 0.35 if name == "busy" else value * 3})
        assert tables(MEASURED, changed) != tables(MEASURED, USUAL), name


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("busy", "70", "at most 1, as 0.7 for 70 %"),
        ("busy", "0", "at most 1"),
        ("day-hours", "0", "more than 0"),
        ("gpu-hour", "-1", "not be below 0"),
        ("peak", "nan", "write a number"),
        ("results", "/none", "there is no knowledge_scale.json"),
    ],
)
def test_a_plan_that_cannot_be_reckoned_is_one_line_that_names_the_option(
    capsys, option, value, says
):
    with pytest.raises(SystemExit) as ended:
        scaling.main([f"--{option}", value])
    last = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2
    assert f"--{option} {value}: " in last
    assert says in last


@pytest.mark.parametrize("name", sorted(Assumptions.__dataclass_fields__))
def test_whatever_is_let_in_gives_a_plan(capsys, name):
    for value in ("0", "0.001", "1"):
        try:
            scaling.main([f"--{name.replace('_', '-')}", value])
        except SystemExit:
            assert value == "0"
    assert "Machines and money" in capsys.readouterr().out


def test_the_line_of_search_times_goes_through_both_measurements():
    latency = json.loads((RESULTS / "question_latency.json").read_text(encoding="utf-8"))
    scale = json.loads((RESULTS / "knowledge_scale.json").read_text(encoding="utf-8"))
    rows = [row["p50_ms"] for row in latency["rows"].values()]
    assert MEASURED.search_seconds(100_000) == pytest.approx(sum(rows) / len(rows) / 1000)
    large = scale["question"]["eight_words"]["p50_ms"] / 1000
    assert MEASURED.search_seconds(1_000_000) == pytest.approx(large)


def test_machines_carry_the_peak_and_hold_the_index():
    for chunks in SIZES:
        for users in CROWDS:
            p = plan(MEASURED, USUAL, chunks, users)
            size = MEASURED.prompt_tokens, USUAL.answer_tokens
            seconds = p.peak * MEASURED.search_seconds(chunks)
            if p.gpus:
                assert p.gpus * USUAL.busy >= p.peak * MEASURED.gpu.seconds(*size)
            else:
                seconds_cpu = 2 * p.peak * MEASURED.cpu.seconds(*size)
                assert p.answer_nodes * USUAL.node_cores * USUAL.busy >= seconds_cpu
            machines = p.search_nodes or p.answer_nodes
            assert machines * USUAL.node_cores * USUAL.busy >= seconds
            assert machines * USUAL.node_gb >= p.memory_gb


def test_milvus_holds_whole_vectors_in_memory():
    far = plan(MEASURED, USUAL, 10**9, 1)
    assert far.memory_gb >= MEASURED.vector_bytes
    near = plan(MEASURED, USUAL, 10**5, 1)
    assert near.local
    assert near.memory_gb == pytest.approx(10**5 * MEASURED.index_bytes / 1e9)


def test_more_chunks_and_more_users_never_cost_less():
    costs = [[plan(MEASURED, USUAL, c, u).cost for u in CROWDS] for c in SIZES]
    assert all(row == sorted(row) for row in costs)
    assert all(list(column) == sorted(column) for column in zip(*costs, strict=True))


def test_a_dearer_gpu_makes_its_answers_dearer():
    dear = replace(USUAL, gpu_hour=5.0)
    assert cost_of_answers(MEASURED, dear, MEASURED.gpu) == pytest.approx(
        2 * cost_of_answers(MEASURED, USUAL, MEASURED.gpu)
    )
    assert plan(MEASURED, replace(USUAL, gpu_hour=1000.0), 10**5, 10_000).gpus == 0
