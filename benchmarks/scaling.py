"""What does it take at 10^5, 10^7 and 10^9 chunks, for 1, 100 and 10,000 users?

Computes the tables of docs/scaling.md from stored measurements and named assumptions; measures
nothing. `--write` puts the tables and the picture into the documentation.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from support.record import RESULTS, ROOT
from support.scaling_model import Assumptions, Measured, Plan, plan
from support.scaling_tables import tables

PAGE = ROOT / "docs" / "scaling.md"
PICTURE = ROOT / "docs" / "images" / "scaling.svg"
BEGIN, END = "<!-- computed: begin -->\n", "<!-- computed: end -->"

# Assumptions that may be nothing at all; everything else is divided by.
_MAY_BE_ZERO = {
    "gpu_hour", "core_hour", "disk_gb_month", "local_seconds", "milvus_bytes", "answer_tokens",
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, or write them.

    Raises:
        SystemExit: an option that cannot be reckoned with, or no measurements.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write", action="store_true", help="update docs/scaling.md")
    for field in fields(Assumptions):
        option = "--" + field.name.replace("_", "-")
        parser.add_argument(option, type=float, default=field.default)
    given = vars(parser.parse_args(arguments))
    results, write = given.pop("results"), given.pop("write")
    for name, value in given.items():
        if wrong := _wrong(name, value):
            parser.error(f"--{name.replace('_', '-')} {value:g}: {wrong}")
    try:
        measured = Measured.read(results)
    except FileNotFoundError as error:
        parser.error(f"--results {results}: there is no {Path(error.filename).name}")
    assumed = Assumptions(**given)
    text = tables(measured, assumed)
    if not write:
        print(text)
        return
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{text}{END}{rest.partition(END)[2]}", encoding="utf-8")
    draw(measured, assumed, PICTURE)


def _wrong(name: str, value: float) -> str:
    """Why an assumption cannot be reckoned with; nothing if it can."""
    if not math.isfinite(value):
        return "write a number"
    if name == "busy" and not 0 < value <= 1:
        return "a share is above 0 and at most 1, as 0.7 for 70 %"
    if name in _MAY_BE_ZERO:
        return "it must not be below 0" if value < 0 else ""
    return "" if value > 0 else "it must be more than 0"


def draw(measured: Measured, assumed: Assumptions, path: Path) -> None:
    """What a month costs, by part, over the number of chunks: one picture for each crowd."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "glm-rag", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot as plt

    sizes = [int(10 ** (5 + step / 8)) for step in range(33)]
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), sharey=True, layout="constrained")
    for axis, users in zip(axes, (1, 100, 10_000), strict=True):
        plans: list[Plan] = [plan(measured, assumed, chunks, users) for chunks in sizes]
        for name, values in (
            ("answers", [p.answer_cost for p in plans]),
            ("search", [p.search_cost for p in plans]),
            ("storage", [p.storage_cost for p in plans]),
        ):
            drawn = [value or None for value in values]  # a logarithm has no 0
            axis.plot(sizes, drawn, label=name, linewidth=1.8)
        crowd = f"{users:,} user" + ("" if users == 1 else "s")
        axis.set(xscale="log", yscale="log", ylim=(1, None), xlabel="chunks", title=crowd)
        axis.grid(visible=True, alpha=0.3)
    axes[0].set_ylabel("$ a month")
    axes[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
