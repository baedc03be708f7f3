"""Charts: bars of counts, and a map of passages. Pure functions from rows to Altair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from glm_rag.knowledge.sampling import Sketch
from glm_rag_ui.tables import cell

if TYPE_CHECKING:
    import altair as alt
    import numpy as np

# Seen on white and on nearly black alike.
ACCENT = "#2a9d86"
COLOURS = (
    *("#2a9d86", "#d9822b", "#5b82d8", "#c8567d", "#8c6fc4"),
    *("#9a9433", "#3b9fc2", "#b5683a", "#6f9a45", "#c46bb0"),
)
GREY = "#98a3a0"
HIT = "#e5484d"
_BAR_PIXELS = 26
_SHOWN_BEGINNING = 110
_SHOWN_TITLE = 40


def bars(counts: Sequence[tuple[str, int]], label: str, value: str) -> alt.LayerChart:
    """Horizontal bars with their numbers, in the order given."""
    import altair as alt

    data = alt.Data(values=[{"name": name, "count": count} for name, count in counts])
    base = alt.Chart(data).encode(
        y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=160, ticks=False)),
        x=alt.X("count:Q", title=None, axis=None),
        tooltip=[
            alt.Tooltip("name:N", title=label),
            alt.Tooltip("count:Q", title=value, format=","),
        ],
    )
    bar = base.mark_bar(color=ACCENT, cornerRadiusEnd=3)
    number = base.mark_text(align="left", dx=5, color=GREY).encode(
        text=alt.Text("count:Q", format=",")
    )
    return alt.layer(bar, number).properties(height=_BAR_PIXELS * len(counts) + 10)


def passage_map(
    sketches: Sequence[Sketch],
    places: np.ndarray,
    hits: Sequence[tuple[Sketch, np.ndarray]],
    words: Mapping[str, str],
) -> alt.LayerChart:
    """Passages as points, coloured by document, with the hits of a question numbered on top.

    Args:
        sketches: of `places`, `[N, 2]`.
        hits: passages and their places `[2]`, best first.
        words: `document`, `passage`, `page`, `others`, `hit`.
    """
    import altair as alt

    names = group_names(sketches, words["others"])
    shown = [name for name in dict.fromkeys(names.values()) if name != words["others"]]
    colours = [*COLOURS[: len(shown)], *([GREY] if words["others"] in names.values() else [])]
    shown += [words["others"]] if words["others"] in names.values() else []
    rows = [
        {**_row(sketch, place), "group": names[sketch.source]}
        for sketch, place in zip(sketches, places, strict=True)
    ]
    tooltip = [
        alt.Tooltip("title:N", title=words["document"]),
        alt.Tooltip("page:N", title=words["page"]),
        alt.Tooltip("beginning:N", title=words["passage"]),
    ]
    axes = {
        "x": alt.X("x:Q", axis=None, scale=alt.Scale(zero=False, padding=12)),
        "y": alt.Y("y:Q", axis=None, scale=alt.Scale(zero=False, padding=12)),
        "tooltip": tooltip,
    }
    legend = alt.Legend(
        title=None, orient="bottom", columns=2, labelLimit=260, symbolOpacity=1, symbolSize=90
    )
    points = (
        alt.Chart(alt.Data(values=rows))
        .mark_circle(size=42, opacity=0.65)
        .encode(
            color=alt.Color("group:N", scale=alt.Scale(domain=shown, range=colours), legend=legend),
            **axes,
        )
    )
    layers: list[Any] = [points]
    if hits:
        marked = [
            {**_row(sketch, place), "rank": rank}
            for rank, (sketch, place) in enumerate(hits, start=1)
        ]
        ring = alt.Chart(alt.Data(values=marked)).encode(
            **{**axes, "tooltip": [alt.Tooltip("rank:O", title=words["hit"]), *tooltip]}
        )
        layers.append(ring.mark_point(size=170, color=HIT, strokeWidth=2.2))
        layers.append(
            ring.mark_text(dx=11, dy=-10, color=HIT, fontWeight=700, fontSize=13).encode(
                text="rank:O"
            )
        )
    return alt.layer(*layers).properties(height=520)


def group_names(sketches: Sequence[Sketch], others: str) -> dict[str, str]:
    """A name for each source: its title where it is among the ten largest, else `others`.

    Two documents with one title get numbers.
    """
    counts = Counter(sketch.source for sketch in sketches)
    titles = {sketch.source: _short(sketch.title, _SHOWN_TITLE) for sketch in sketches}
    names = dict.fromkeys(counts, others)
    taken: Counter[str] = Counter({others: 1})
    for source, _ in counts.most_common(len(COLOURS)):
        title = titles[source]
        taken[title] += 1
        names[source] = title if taken[title] == 1 else f"{title} ({taken[title]})"
    first = [source for source, _ in counts.most_common()]
    return {source: names[source] for source in first}


def _row(sketch: Sketch, place: np.ndarray) -> dict[str, Any]:
    return {
        "x": round(float(place[0]), 5),
        "y": round(float(place[1]), 5),
        "title": _short(sketch.title, _SHOWN_TITLE),
        "page": "" if sketch.page is None else str(sketch.page),
        "beginning": _short(sketch.beginning, _SHOWN_BEGINNING),
    }


def _short(text: str, most: int) -> str:
    line = cell(text)
    return line if len(line) <= most else f"{line[: most - 1]}…"
