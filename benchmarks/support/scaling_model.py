"""How much of what a number of chunks and users needs: pure arithmetic over measured figures."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

_HOURS_A_MONTH = 730
_GB = 1e9


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What is not measured. Money in US dollars; change any on the command line.

    Attributes:
        questions_a_day: of one user on a working day. workdays: of a month. day_hours: of work.
        peak: questions in the busiest hour over those of an average working hour.
        answer_tokens: of one answer.
        busy: share of a machine's capacity that is planned for.
        gpu_hour: one H100. core_hour: one CPU core with 4 GB of memory.
        disk_gb_month: of fast disk.
        node_cores, node_gb: of a CPU machine.
        local_seconds: longest search of one core that the knowledge base on one machine may take.
        milvus_bytes: of memory that Milvus takes for a chunk besides its float32 vector: graph,
            words, columns.
    """

    questions_a_day: float = 20
    workdays: float = 21
    day_hours: float = 8
    peak: float = 3
    answer_tokens: float = 150
    busy: float = 0.7
    gpu_hour: float = 2.5
    core_hour: float = 0.05
    disk_gb_month: float = 0.1
    node_cores: float = 8
    node_gb: float = 32
    local_seconds: float = 1.0
    milvus_bytes: float = 1500


@dataclass(frozen=True, slots=True)
class Device:
    """What runs the model: tokens a second read, and written by all answers together.

    Attributes:
        alone: tokens a second of one answer when no other runs.
        together: answers that ran at once for `write`, their prompts' reading included.
    """

    name: str
    read: float
    write: float
    alone: float
    together: int

    def seconds(self, prompt: float, answer: float) -> float:
        """Of the whole device, for one question when it is busy."""
        return prompt / self.read + answer / self.write

    def wait(self, prompt: float, answer: float) -> float:
        """Until a lone answer is complete."""
        return prompt / self.read + answer / self.alone


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures of benchmarks/results, each with its unit.

    Attributes:
        disk_bytes: of one chunk of real documents: text, offsets, words, vector.
        index_bytes, vector_bytes: of one chunk in the index file, and of its float32 vector.
        chunks_a_second: read, split and embedded by one core.
        dense_seconds: of one core, for the nearest of 10^6 vectors: a part of the search.
        search_fixed, search_per_chunk: seconds of one core for a question over n chunks are
            fixed + n * per_chunk: the line through the measurements at 10^5 and 10^6.
        prompt_tokens: of a question with its passages.
        cpu, gpu: two cores with int4 weights; one H100 with 16-bit weights.
    """

    disk_bytes: float
    index_bytes: float
    vector_bytes: float
    chunks_a_second: float
    dense_seconds: float
    search_fixed: float
    search_per_chunk: float
    prompt_tokens: float
    cpu: Device
    gpu: Device

    @classmethod
    def read(cls, folder: Path) -> Measured:
        """From the stored results."""
        scale, ingest = _load(folder, "knowledge_scale"), _load(folder, "ingest_throughput")
        latency, answers = _load(folder, "question_latency"), _load(folder, "answers_xquad")
        small = mean(row["p50_ms"] for row in latency["rows"].values()) / 1000
        large = scale["question"]["eight_words"]["p50_ms"] / 1000
        few, many = latency["chunks"], scale["build"]["num_chunks"]
        per_chunk = (large - small) / (many - few)
        evidence = next(row for row in answers["rows"] if row["context"] == "evidence")
        speeds = [part["chunks/s"] for part in ingest["parts"]]
        return cls(
            disk_bytes=ingest["bytes_per_chunk"],
            index_bytes=scale["bytes_per_chunk"]["snapshot"],
            vector_bytes=scale["bytes_per_chunk"]["of_these_vector"],
            chunks_a_second=median(speeds) / ingest["machine"]["cores"],
            dense_seconds=scale["search"]["p50_ms"] / 1000,
            search_fixed=small - few * per_chunk,
            search_per_chunk=per_chunk,
            prompt_tokens=evidence["tokens read (median)"],
            cpu=_cpu(_load(folder, "engine_vs_llama_cpp")),
            gpu=_gpu(_load(folder, "gpu_engine"), _load(folder, "concurrent_streams_cuda")),
        )

    def search_seconds(self, chunks: float) -> float:
        """Of one core, for one question."""
        return self.search_fixed + chunks * self.search_per_chunk


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. Costs in dollars a month.

    Attributes:
        peak: questions a second in the busiest hour. questions: of a month.
        gpus, answer_nodes: that write answers: H100s, or CPU machines where they are cheaper.
        search_nodes: CPU machines that search; 0 where those that answer have room.
        memory_bound: whether the index's size decides how many of them, not the questions.
        local: whether the knowledge base of one machine will do.
        search_wait: seconds that a lone search takes, spread over all its cores.
        ingest_core_hours: to read and embed all documents once.
    """

    chunks: int
    users: int
    peak: float
    questions: float
    gpus: int
    answer_nodes: int
    search_nodes: int
    memory_bound: bool
    local: bool
    search_wait: float
    memory_gb: float
    disk_gb: float
    ingest_core_hours: float
    answer_cost: float
    search_cost: float
    storage_cost: float

    @property
    def cost(self) -> float:
        """Of a month."""
        return self.answer_cost + self.search_cost + self.storage_cost

    @property
    def cost_per_million(self) -> float:
        """Dollars for a million questions, standing costs included."""
        return self.cost / self.questions * 1e6

    @property
    def bottleneck(self) -> str:
        """What costs most."""
        parts = {
            "answers": self.answer_cost,
            f"search: {'memory' if self.memory_bound else 'cores'}": self.search_cost,
            "storage": self.storage_cost,
        }
        return max(parts, key=lambda name: parts[name])


def plan(measured: Measured, assumed: Assumptions, chunks: int, users: int) -> Plan:
    """Machines for the busiest hour, and what they cost around the clock."""
    a = assumed
    peak = users * a.questions_a_day / (a.day_hours * 3600) * a.peak
    node_hour = a.core_hour * a.node_cores
    gpus, answer_cores = _answering(measured, a, peak)
    answer_nodes = math.ceil(answer_cores / a.node_cores)
    seconds = measured.search_seconds(chunks)
    for_cores = math.ceil(peak * seconds / a.busy / a.node_cores)
    memory = chunks * measured.index_bytes / _GB
    local = seconds <= a.local_seconds and max(for_cores, _nodes_for(memory, a)) <= 1
    if not local:
        memory = chunks * (measured.vector_bytes + a.milvus_bytes) / _GB
    for_memory = _nodes_for(memory, a)
    # one machine does both where both fit
    spare = answer_nodes * a.node_cores - answer_cores
    fits = local and answer_nodes > 0 and peak * seconds / a.busy <= spare
    search_nodes = 0 if fits else max(for_cores, for_memory, 1)
    answering = gpus * a.gpu_hour + answer_nodes * node_hour
    return Plan(
        chunks=chunks,
        users=users,
        peak=peak,
        questions=users * a.questions_a_day * a.workdays,
        gpus=gpus,
        answer_nodes=answer_nodes,
        search_nodes=search_nodes,
        memory_bound=for_memory > for_cores,
        local=local,
        search_wait=seconds if local else seconds / (search_nodes * a.node_cores),
        memory_gb=memory,
        disk_gb=chunks * measured.disk_bytes / _GB,
        ingest_core_hours=chunks / measured.chunks_a_second / 3600,
        answer_cost=answering * _HOURS_A_MONTH,
        search_cost=search_nodes * node_hour * _HOURS_A_MONTH,
        storage_cost=chunks * measured.disk_bytes / _GB * a.disk_gb_month,
    )


def _nodes_for(memory_gb: float, a: Assumptions) -> int:
    return math.ceil(memory_gb / (a.node_gb * a.busy))


def cost_of_answers(measured: Measured, assumed: Assumptions, device: Device) -> float:
    """Dollars for the answers of a million questions on machines that are as busy as planned."""
    seconds = device.seconds(measured.prompt_tokens, assumed.answer_tokens) / assumed.busy
    hour = assumed.gpu_hour if device is measured.gpu else 2 * assumed.core_hour
    return seconds * hour / 3600 * 1e6


def _answering(measured: Measured, a: Assumptions, peak: float) -> tuple[int, float]:
    """H100s, or CPU cores, whichever costs less for this many questions a second."""
    size = measured.prompt_tokens, a.answer_tokens
    gpus = math.ceil(peak * measured.gpu.seconds(*size) / a.busy)
    cores = 2 * peak * measured.cpu.seconds(*size) / a.busy
    nodes = math.ceil(cores / a.node_cores)
    if nodes * a.node_cores * a.core_hour <= gpus * a.gpu_hour:
        return 0, cores
    return gpus, 0.0


def _cpu(result: dict[str, Any]) -> Device:
    own = result["medians"]["glm-rag"]
    speed = own["decode at 0"]
    return Device("2 CPU cores, int4", own["prefill 512"], speed, speed, 1)


def _gpu(alone: dict[str, Any], together: dict[str, Any]) -> Device:
    """Reading as an answer alone does it, writing as many answers together do."""
    read = next(row for row in alone["rows"] if row["model"] == "glm-rag, bfloat16")["prefill 512"]
    rows = [row for row in together["rows"] if row["weights"] == "bfloat16"]
    speeds = {
        int(row["answers"].split()[0]): row["tok/s"]
        for row in rows
        if row["answers"].endswith(" streams")
    }
    most = max(speeds)
    return Device("H100, bfloat16", read, speeds[most], speeds[1], most)


def _load(folder: Path, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return loaded
