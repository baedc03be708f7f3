"""Cut extracted text into chunks that end where sentences, rows, definitions and sections do.

Token-exact for the embedder: what is embedded of a chunk, headings and table header included,
never exceeds the limit, so no text is lost to truncation.

    spans        what stays whole (sentence, row, line) and how well the text may be cut before it
    sections     what lies under which heading
    definitions  classes and functions of source code
    filling      spans to chunks, counted
"""

from __future__ import annotations

from glm_rag_ingest.splitting.filling import split

__all__ = ["VERSION", "split"]

VERSION = "split/2"
