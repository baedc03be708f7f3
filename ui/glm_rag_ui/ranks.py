"""An explained search as HTML: three orders side by side, and what is decided. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from glm_rag.grounding import judge
from glm_rag.settings import RetrievalSettings
from glm_rag.text import term_spans
from glm_rag_ui import evidence, render
from glm_rag_ui.i18n import Translate

if TYPE_CHECKING:
    from langchain_core.documents import Document

    from glm_rag.retrieval.explain import Explained, Explanation

# Each order's name, what it goes by, and what stands where it is empty.
_ORDERS = {
    "dense": ("rank_dense", "rank_dense_help", "no_hits"),
    "sparse": ("rank_sparse", "rank_sparse_help", "no_words"),
    "fused": ("rank_fused", "rank_fused_help", "no_hits"),
}
_NOTHING = {"small_talk": "nothing_small_talk", "no_terms": "nothing_no_terms"}
_BEFORE = 60  # characters shown before the first matching word of a long passage
_BEGINNING = 200


def verdict(told: Explanation, retrieval: RetrievalSettings, t: Translate) -> str:
    """Whether an answer would be given, and why."""
    if told.nothing:
        return render.notice("info", t("would_not"), t(_NOTHING[told.nothing]))
    if not told.candidates:
        return render.notice("info", t("would_not"), t("nothing_matches"))
    documents = [item.document for item in told.final]
    judged = judge(documents, abstain=retrieval.abstain, threshold=retrieval.threshold)
    margin = documents[0].metadata.get("evidence")
    if margin is None:
        reason = t("not_calibrated")
    elif not retrieval.abstain:
        reason = t("never_declines", margin=_signed(margin))
    else:
        words = "margin_enough" if judged.answerable else "margin_short"
        reason = t(words, margin=_signed(margin), threshold=f"{retrieval.threshold:g}")
    kind, headline = ("done", "would") if judged.answerable else ("warn", "would_not")
    return render.notice(kind, t(headline), reason)


def terms(told: Explanation, t: Translate) -> str:
    """What the question was taken for: its search terms, the rarest first."""
    if not told.terms:
        return ""
    met = {term for item in told.candidates for term in item.terms}
    chips = " ".join(
        f'<span class="gr-chip{"" if term in met else " gr-missing"}">{render.escape(term)} '
        f"<small>{weight:.1f}</small></span>"
        for term, weight in sorted(told.terms.items(), key=lambda item: -item[1])
    )
    note = t("terms_missing" if set(told.terms) - met else "terms_weight")
    return f'<p class="gr-terms"><b>{t("terms")}</b> {chips} <small>{note}</small></p>'


def columns(told: Explanation, k: int, retrieval: RetrievalSettings, t: Translate) -> str:
    """The first `k` by meaning, by words, and fused, side by side."""
    dense = sorted(told.candidates, key=lambda item: item.dense_rank)[:k]
    worded = [item for item in told.candidates if item.sparse_rank is not None]
    sparse = sorted(worded, key=lambda item: item.sparse_rank or 0)[:k]
    lists = {"dense": dense, "sparse": sparse, "fused": list(told.candidates[:k])}
    body = "".join(_column(name, items, told, retrieval, t) for name, items in lists.items())
    return f'<div class="gr-ranks">{body}</div>'


def _column(
    name: str,
    items: Sequence[Explained],
    told: Explanation,
    retrieval: RetrievalSettings,
    t: Translate,
) -> str:
    title, goes_by, empty = _ORDERS[name]
    cards = "".join(_card(name, item, told, retrieval, t) for item in items)
    return (
        f'<section><h3>{t(title)}</h3><p class="gr-figures">{t(goes_by)}</p>'
        f"{cards or f'<p>{t(empty)}</p>'}</section>"
    )


def _card(
    name: str, item: Explained, told: Explanation, retrieval: RetrievalSettings, t: Translate
) -> str:
    rank = {"dense": item.dense_rank, "sparse": item.sparse_rank, "fused": item.fused_rank}
    own = {"dense": item.cosine, "sparse": item.bm25, "fused": item.score}
    others = " · ".join(
        f"{t(_ORDERS[other][0])} {rank[other] or '–'}" for other in rank if other != name
    )
    # A passage that is among the first few everywhere has the same colour everywhere.
    tint = f" gr-tint-{item.fused_rank}" if item.fused_rank <= 5 else ""
    margin = _margin(item.evidence, retrieval, t) if name == "fused" else ""
    facts = f"<small>{_number(own[name])} · {others}</small>{margin}"
    return _passage(item.document, rank[name] or 0, facts, list(told.terms), t, css=tint)


def _margin(value: float | None, retrieval: RetrievalSettings, t: Translate) -> str:
    if value is None:
        return ""
    enough = value >= retrieval.threshold
    words = t("margin", margin=_signed(value))
    return f'<small class="gr-{"enough" if enough else "short"}">{words}</small>'


def final(told: Explanation, t: Translate) -> str:
    """What the model would be given where the fused order is changed, and each one's way there."""
    places = {item.document.id: item.fused_rank for item in told.candidates}
    cards = []
    for number, hit in enumerate(told.final, start=1):
        before = places.get(hit.document.id)
        facts = [t("was_fused", n=before)] if before else []
        if (own := hit.document.metadata.get("rerank_score")) is not None:
            facts.append(t("rerank_score", score=_number(float(own))))
        small = f"<small>{render.escape(' · '.join(facts))}</small>"
        cards.append(_passage(hit.document, number, small, list(told.terms), t))
    return f'<div class="gr-ranks gr-final"><section>{"".join(cards)}</section></div>'


def changes_order(retrieval: RetrievalSettings) -> bool:
    """Whether these settings do anything to the fused order."""
    return retrieval.rerank != "none" or retrieval.mmr > 0 or retrieval.expand != "none"


def _passage(
    document: Document, number: int, facts: str, wanted: Sequence[str], t: Translate, css: str = ""
) -> str:
    metadata = document.metadata
    title = str(metadata.get("title") or render.file_name(str(metadata.get("source", ""))))
    text = document.page_content
    spans = term_spans(text, wanted)
    start = max(0, spans[0][0] - _BEFORE) if spans and spans[0][0] > _BEGINNING else 0
    shown = [(a - start, b - start) for a, b in spans]
    beginning = ("…" if start else "") + text[start : start + 2 * _BEGINNING]
    offset = 1 if start else 0
    glance = evidence.highlighted(beginning, [(a + offset, b + offset) for a, b in shown])
    return (
        f'<details class="gr-rank{css}"><summary><span class="gr-number">{number}</span>'
        f"<b>{render.place(title, metadata.get('page'), t)}</b>{facts}"
        f'<div class="gr-glance">{glance}</div></summary>'
        f"{evidence.highlighted(text, spans)}</details>"
    )


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
