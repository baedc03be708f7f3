"""Documents as rows: filtered, counted, grouped. Pure functions."""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from glm_rag.text import fold
from glm_rag.types import DocumentInfo, IngestFailure, KnowledgeBaseInfo, Language
from glm_rag_ingest.prune import path_of
from glm_rag_ui import evidence, render
from glm_rag_ui.i18n import Translate

# Streamlit's own format of bytes says 3.8万 B in Chinese.
KILOBYTES = "%.1f KB"

_KINDS = {
    "application/epub+zip": "EPUB",
    "application/json": "JSON",
    "application/pdf": "PDF",
    "application/rtf": "RTF",
    "application/vnd.ms-outlook": "Outlook",
    "application/vnd.oasis.opendocument.text": "ODT",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "PowerPoint",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "Excel",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "Word",
    "application/x-ipynb+json": "Jupyter",
    "application/x-ole-storage": "Office 97",
    "application/zip": "ZIP",
    "image/*": "Image",
    "message/rfc822": "Mail",
    "text/csv": "CSV",
    "text/html": "HTML",
    "text/markdown": "Markdown",
    "text/plain": "Text",
    "text/x-cpp": "C++",
    "text/x-csharp": "C#",
    "text/x-rst": "RST",
}
LANGUAGES: Mapping[Language, str] = {"en": "lang_english", "zh": "lang_chinese"}  # their words
_SOURCE_CODE = re.compile(r"text/x-([\w+#-]+)")
# Passages per document: from each of these numbers up to the next.
_STEPS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)


def kind_of(info: DocumentInfo) -> str:
    """A short name of a document's format."""
    known = _KINDS.get(info.media_type)
    if known is not None:
        return known
    code = _SOURCE_CODE.fullmatch(info.media_type)
    return code[1].capitalize() if code else info.media_type


def kind_name(info: DocumentInfo, t: Translate) -> str:
    """The same in the reader's language."""
    return kind_in(kind_of(info), t)


def kind_in(kind: str, t: Translate) -> str:
    """What `kind_of` gives, in the reader's language."""
    words = {"Image": "kind_image", "Mail": "kind_mail", "Text": "kind_text"}.get(kind)
    return t(words) if words else kind


def filtered(
    documents: Sequence[DocumentInfo],
    text: str = "",
    languages: Sequence[str] = (),
    kinds: Sequence[str] = (),
) -> list[DocumentInfo]:
    """Those whose title or file name holds every word of `text`, in a language, of a format."""
    words = fold(text).split()
    return [
        info
        for info in documents
        if (not languages or info.language in languages)
        and (not kinds or kind_of(info) in kinds)
        and all(word in _searched(info) for word in words)
    ]


def _searched(info: DocumentInfo) -> str:
    return fold(f"{info.title} {render.file_name(info.source)}")


def document_rows(documents: Sequence[DocumentInfo], t: Translate) -> dict[str, list[Any]]:
    """Columns of the table of documents; sizes in KB."""
    return {
        "title": [cell(info.title) for info in documents],
        "kind": [kind_name(info, t) for info in documents],
        "language": [t(LANGUAGES[info.language]) for info in documents],
        "passages": [info.num_chunks for info in documents],
        "size": [info.size / 1000 for info in documents],
        "added": [datetime.fromtimestamp(info.added_at) for info in documents],
        "file": [cell(render.file_name(info.source)) for info in documents],
    }


def failure_rows(failures: Sequence[IngestFailure], t: Translate) -> dict[str, list[Any]]:
    """Columns of the table of failures."""
    return {
        "file": [cell(render.file_name(failed.source)) for failed in failures],
        "reason": [cell(evidence.reason(failed.error, t)) for failed in failures],
        "folder": [cell(_folder(failed.source)) for failed in failures],
    }


def base_rows(infos: Sequence[KnowledgeBaseInfo], t: Translate) -> dict[str, list[Any]]:
    """Columns of the table of knowledge bases; no numbers for one that cannot be opened."""
    return {
        "name": [cell(info.name) for info in infos],
        "documents": [None if info.error else info.num_documents for info in infos],
        "passages": [None if info.error else info.num_chunks for info in infos],
        "failures": [None if info.error else info.num_failures for info in infos],
        "size": [info.size_bytes / 1000 for info in infos],
    }


def cell(text: str) -> str:
    """Text for a cell: one line, control and direction characters made visible."""
    return html.unescape(render.escape(" ".join(text.split())))


def _folder(source: str) -> str:
    path = path_of(source)
    return source if path is None else str(path.parent)


# ---------------------------------------------------------------- statistics


def languages(documents: Sequence[DocumentInfo], t: Translate) -> list[tuple[str, int]]:
    """Documents in each language, the most frequent first."""
    return [
        (t(LANGUAGES[language]), count)
        for language, count in Counter(info.language for info in documents).most_common()
    ]


def kinds(documents: Sequence[DocumentInfo], most: int, t: Translate) -> list[tuple[str, int]]:
    """Documents of each format, the most frequent first; beyond `most` all others as one."""
    counts = Counter(kind_of(info) for info in documents).most_common()
    shown = [(kind_in(name, t), count) for name, count in counts[:most]]
    rest = sum(count for _, count in counts[most:])
    return [*shown, (t("others"), rest)] if rest else shown


def passages_per_document(documents: Sequence[DocumentInfo]) -> list[tuple[str, int]]:
    """How many documents have so many passages: `3–4`, count; from the first to the last used."""
    counts = Counter(bisect_right(_STEPS, info.num_chunks) for info in documents)
    if not counts:
        return []
    return [(_step(place), counts[place]) for place in range(min(counts), max(counts) + 1)]


def _step(place: int) -> str:
    if place == 0:
        return "0"
    if place == len(_STEPS):
        return f"≥ {_STEPS[-1]:,}"
    low, high = _STEPS[place - 1], _STEPS[place] - 1
    return str(low) if low == high else f"{low}–{high}"
