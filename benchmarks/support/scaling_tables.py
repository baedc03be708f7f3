"""The planning tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from support.scaling_model import Assumptions, Measured, Plan, cost_of_answers, plan

SIZES = (10**5, 10**7, 10**9)
CROWDS = (1, 100, 10_000)
_POWERS = {10**5: "10⁵", 10**7: "10⁷", 10**9: "10⁹"}


def tables(measured: Measured, assumed: Assumptions) -> str:
    """Everything that docs/scaling.md shows between its two marks."""
    parts = [
        ("Measured", _measured(measured)),
        ("Assumed", _assumed(assumed)),
        ("By the number of chunks", _by_size(measured, assumed)),
        ("By what writes the answers", _by_device(measured, assumed)),
        ("Machines and money", _plans(measured, assumed)),
    ]
    return "\n".join(f"### {title}\n\n{table}\n" for title, table in parts)


def _measured(m: Measured) -> str:
    rows = [
        ("disk for a chunk of real documents", f"{m.disk_bytes:,.0f} bytes", "ingest_throughput"),
        ("index file per chunk, in memory", f"{m.index_bytes:,.0f} bytes", "knowledge_scale"),
        ("its vector in float32", f"{m.vector_bytes:,.0f} bytes", "knowledge_scale"),
        (
            "read, split and embedded by a core",
            f"{m.chunks_a_second:.2f} chunks/s",
            "ingest_throughput",
        ),
        (
            "a search, seconds of a core",
            f"{m.search_fixed * 1000:.1f} ms + {m.search_per_chunk * 1e9:.1f} ms per 10⁶ chunks",
            "question_latency, knowledge_scale",
        ),
        (
            "of it, the nearest of 10⁶ vectors",
            f"{m.dense_seconds * 1000:.1f} ms",
            "knowledge_scale",
        ),
        ("tokens of a question with its passages", f"{m.prompt_tokens:,.0f}", "answers_xquad"),
    ]
    for device, source in (
        (m.cpu, "engine_vs_llama_cpp"),
        (m.gpu, "gpu_engine, concurrent_streams_cuda"),
    ):
        speed = f"{device.read:,.0f} read, {device.alone:,.0f} written by one answer"
        if device.together > 1:
            speed += f", {device.write:,.0f} by {device.together} together"
        rows.append((f"tokens/s, {device.name}", speed, source))
    return _table(("what", "figure", "benchmarks/results"), rows)


def _assumed(a: Assumptions) -> str:
    rows = [
        ("questions of a user on a working day", _short(a.questions_a_day), "questions-a-day"),
        ("working days of a month", _short(a.workdays), "workdays"),
        ("hours of a working day", _short(a.day_hours), "day-hours"),
        ("busiest hour over an average one", f"x {_short(a.peak)}", "peak"),
        ("tokens of an answer", _short(a.answer_tokens), "answer-tokens"),
        ("planned share of a machine's capacity", f"{a.busy:.0%}", "busy"),
        ("an H100", f"${a.gpu_hour:.2f} an hour", "gpu-hour"),
        ("a CPU core with 4 GB of memory", f"${a.core_hour:.2f} an hour", "core-hour"),
        ("fast disk", f"${a.disk_gb_month:.2f} a GB and month", "disk-gb-month"),
        (
            "a CPU machine",
            f"{_short(a.node_cores)} cores, {_short(a.node_gb)} GB",
            "node-cores, node-gb",
        ),
        (
            "longest search of one core before Milvus",
            f"{_short(a.local_seconds)} s",
            "local-seconds",
        ),
        (
            "memory of a chunk in Milvus besides its vector: graph, words, columns",
            f"{a.milvus_bytes:,.0f} bytes",
            "milvus-bytes",
        ),
    ]
    return _table(("what", "value", "option"), rows)


def _by_size(m: Measured, a: Assumptions) -> str:
    rows = []
    for chunks in SIZES:
        one = plan(m, a, chunks, 1)
        seconds = m.search_seconds(chunks)
        rows.append(
            (
                _POWERS[chunks],
                _size(one.disk_gb),
                _size(one.memory_gb),
                f"{one.ingest_core_hours:,.0f} core hours",
                _duration(one.ingest_core_hours / 100),
                f"${one.ingest_core_hours * a.core_hour:,.2f}",
                f"{seconds:,.2f} s",
                f"${seconds / a.busy * a.core_hour / 3600 * 1e6:,.1f}",
            )
        )
    head = ("chunks", "disk", "index", "reading them once", "on 100 cores", "costs")
    return _table((*head, "search, one core", "10⁶ searches"), rows)


def _by_device(m: Measured, a: Assumptions) -> str:
    rows = []
    for device in (m.cpu, m.gpu):
        seconds = device.seconds(m.prompt_tokens, a.answer_tokens)
        rows.append(
            (
                device.name,
                f"{m.prompt_tokens / device.read:.2f} s",
                f"{device.wait(m.prompt_tokens, a.answer_tokens):.1f} s",
                f"{3600 * a.busy / seconds:,.0f}",
                f"${cost_of_answers(m, a, device):,.0f}",
            )
        )
    head = ("device", "first token", "whole answer, alone", "questions an hour", "10⁶ answers")
    return _table(head, rows)


def _plans(m: Measured, a: Assumptions) -> str:
    plans = [plan(m, a, chunks, users) for chunks in SIZES for users in CROWDS]
    rows = [
        (
            _POWERS[p.chunks],
            f"{p.users:,}",
            f"{p.peak:.2g}",
            _answering(p),
            _searching(p),
            f"{p.search_wait:.2f} s",
            f"${p.cost:,.0f}",
            f"${p.cost_per_million:,.0f}",
            p.bottleneck,
        )
        for p in plans
    ]
    head = ("chunks", "users", "questions/s at the peak", "answers by", "search by", "a search")
    return _table((*head, "a month", "10⁶ questions", "costs most"), rows)


def _answering(p: Plan) -> str:
    if p.gpus:
        return f"{p.gpus} x H100"
    return _machines(p.answer_nodes)


def _searching(p: Plan) -> str:
    if not p.search_nodes:
        return "the same"
    return ("" if p.local else "Milvus on ") + _machines(p.search_nodes)


def _machines(count: int) -> str:
    return f"{count:,} CPU machine" + ("" if count == 1 else "s")


def _duration(hours: float) -> str:
    if hours >= 48:
        return f"{hours / 24:,.0f} days"
    return f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:,.0f} min"


def _size(gigabytes: float) -> str:
    if gigabytes >= 1000:
        return f"{gigabytes / 1000:.1f} TB"
    return f"{gigabytes:,.0f} GB" if gigabytes >= 10 else f"{gigabytes:.2f} GB"


def _short(value: float) -> str:
    return f"{value:g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)
