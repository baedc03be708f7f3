"""Charts: bars of counts, and a map of passages. Pure functions from rows to Vega-Lite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from glm_rag.knowledge.sampling import Sketch
from glm_rag_ui.tables import cell

if TYPE_CHECKING:
    import numpy as np

Spec = dict[str, Any]

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


def bars(counts: Sequence[tuple[str, int]], label: str, value: str) -> Spec:
    """Horizontal bars with their numbers, in the order given."""
    number = {"field": "count", "type": "quantitative"}
    return {
        "data": {"values": [{"name": name, "count": count} for name, count in counts]},
        "height": _BAR_PIXELS * len(counts) + 10,
        "encoding": {
            "y": {
                "field": "name",
                "type": "nominal",
                "sort": None,
                "title": None,
                "axis": {"labelLimit": 160, "ticks": False},
            },
            "x": {**number, "axis": None},
            "tooltip": [
                {"field": "name", "type": "nominal", "title": label},
                {**number, "title": value, "format": ","},
            ],
        },
        "layer": [
            {"mark": {"type": "bar", "color": ACCENT, "cornerRadiusEnd": 3}},
            {
                "mark": {"type": "text", "align": "left", "dx": 5, "color": GREY},
                "encoding": {"text": {**number, "format": ","}},
            },
        ],
    }


def passage_map(
    sketches: Sequence[Sketch],
    places: np.ndarray,
    hits: Sequence[tuple[Sketch, np.ndarray]],
    words: Mapping[str, str],
) -> Spec:
    """Passages as points, coloured by document, with the hits of a question numbered on top.

    Args:
        sketches: of `places`, `[N, 2]`.
        hits: passages and their places `[2]`, best first.
        words: `document`, `passage`, `page`, `others`, `hit`.
    """
    names = group_names(sketches, words["others"])
    rows = [
        {**_row(sketch, place), "group": names[sketch.source]}
        for sketch, place in zip(sketches, places, strict=True)
    ]
    told = [
        {"field": "title", "type": "nominal", "title": words["document"]},
        {"field": "page", "type": "nominal", "title": words["page"]},
        {"field": "beginning", "type": "nominal", "title": words["passage"]},
    ]
    axis = {"type": "quantitative", "axis": None, "scale": {"zero": False, "padding": 12}}
    points = {
        "mark": {"type": "circle", "size": 42, "opacity": 0.65},
        "encoding": {"color": _colours(names, words["others"]), "tooltip": told},
    }
    return {
        "data": {"values": rows},
        "height": 520,
        "encoding": {"x": {"field": "x", **axis}, "y": {"field": "y", **axis}},
        "layer": [points, *(_hits(hits, told, words["hit"]) if hits else [])],
    }


def _colours(names: Mapping[str, str], others: str) -> Spec:
    shown = [name for name in dict.fromkeys(names.values()) if name != others]
    colours = list(COLOURS[: len(shown)])
    if others in names.values():
        shown.append(others)
        colours.append(GREY)
    legend = {
        "title": None,
        "orient": "bottom",
        "columns": {"expr": "width < 500 ? 1 : 2"},  # a phone
        "labelLimit": 260,
        "symbolOpacity": 1,
        "symbolSize": 90,
    }
    return {
        "field": "group",
        "type": "nominal",
        "scale": {"domain": shown, "range": colours},
        "legend": legend,
    }


def _hits(
    hits: Sequence[tuple[Sketch, np.ndarray]], told: Sequence[Spec], title: str
) -> list[Spec]:
    """Rings with the rank beside them."""
    rows = [
        {**_row(sketch, place), "rank": rank} for rank, (sketch, place) in enumerate(hits, start=1)
    ]
    rank = {"field": "rank", "type": "ordinal"}
    tooltip = [{**rank, "title": title}, *told]
    ring = {"type": "point", "size": 170, "color": HIT, "strokeWidth": 2.2}
    text = {"type": "text", "dx": 11, "dy": -10, "color": HIT, "fontWeight": 700, "fontSize": 13}
    data = {"values": rows}
    return [
        {"data": data, "mark": ring, "encoding": {"tooltip": tooltip}},
        {"data": data, "mark": text, "encoding": {"text": rank}},
    ]


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
