"""What holds of every split, whatever the text and the counter."""

from __future__ import annotations

import re
from bisect import bisect_right

from glm_rag.settings import SplittingSettings
from glm_rag.types import ExtractedDocument
from glm_rag_ingest.splitting import split

_RULE = re.compile(r"\|(\s*:?-+:?\s*\|)+")


def document(text, *, pages=(), media_type="text/markdown"):
    return ExtractedDocument(
        source="file:///a",
        title="a",
        text=text,
        sha256="0" * 64,
        size=len(text),
        mtime=0.0,
        media_type=media_type,
        parser_version="x",
        pages=pages,
    )


def characters(text):
    return len(text) + 3


def words(text):
    """Also counts what is not additive: every other character of a word, rounded up."""
    return 4 + sum(-(-len(word) // 2) for word in text.split())


def check_laws(
    text,
    count,
    chunk_tokens,
    overlap_tokens=8,
    max_tokens=512,
    *,
    media_type="text/markdown",
    pages=(),
):
    chunks = split(
        document(text, media_type=media_type, pages=pages),
        count,
        SplittingSettings(chunk_tokens=chunk_tokens, overlap_tokens=overlap_tokens),
        max_tokens,
    )
    limit = min(chunk_tokens, max_tokens)
    covered = [False] * len(text)
    for chunk in chunks:
        assert text[chunk.start : chunk.end] == chunk.text
        assert chunk.text
        assert chunk.text == chunk.text.strip()
        assert count(chunk.embedding_text) <= limit
        assert 0 <= chunk.section[0] <= chunk.start < chunk.end <= chunk.section[1] <= len(text)
        assert not chunk.table_header or chunk.table_header in text[: chunk.start]
        covered[chunk.start : chunk.end] = [True] * (chunk.end - chunk.start)
    missed = [char for char, done in zip(text, covered, strict=True) if not done]
    assert not "".join(missed).strip()
    starts = [(chunk.start, chunk.end) for chunk in chunks]
    assert starts == sorted(set(starts))
    return chunks


def table_rows(text):
    """`(start, end, header)` of every row below a header line, found in another way."""
    position, above, header = 0, "", None
    for line in text.split("\n"):
        is_row = len(line.rstrip(" \t")) > 1 and line[:1] == "|" and line.rstrip(" \t")[-1] == "|"
        if not is_row:
            above, header = "", None
        elif header is not None:
            yield position, position + len(line.rstrip()), header
        elif above and _RULE.fullmatch(line.rstrip()) and _is_first_row(text, position, above):
            header = above.rstrip()
        above = line if is_row else ""
        position += len(line) + 1


def _is_first_row(text, position, above):
    """Whether the line above is the first of its table."""
    before = text[: position - len(above) - 1].rsplit("\n", 2)
    line = before[-2].rstrip(" \t") if len(before) > 1 else ""
    return not (len(line) > 1 and line[0] == "|" and line[-1] == "|")


def check_tables(text, chunks, count, chunk_tokens):
    """Rows stay whole where they fit, and carry their header wherever they begin a chunk."""
    starts = {chunk.start: chunk for chunk in chunks}
    in_order = list(starts)
    overhead = count("")
    for start, end, header in table_rows(text):
        if start in starts:
            found = starts[start].table_header
            assert header.startswith(found)
            if (count(header) - overhead) * 5 <= chunk_tokens:
                assert found == header
        if (count(text[start:end]) - overhead) * 4 <= chunk_tokens - overhead:
            assert end <= starts[in_order[bisect_right(in_order, start) - 1]].end
    for chunk in chunks:
        if chunk.table_header and chunk.text.startswith("|"):
            assert text[chunk.start - 1] == "\n"  # the packing counts on it
