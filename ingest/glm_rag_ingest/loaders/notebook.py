"""Jupyter notebooks (.ipynb): prose as it is, code in fences, text outputs without pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from glm_rag_ingest.loaders import markdown
from glm_rag_ingest.loaders.base import Extracted, failure
from glm_rag_ingest.loaders.encoding import decode
from glm_rag_ingest.loaders.json_lines import parse

VERSION = "notebook/1"
MEDIA_TYPE = "application/x-ipynb+json"
SUFFIXES = (".ipynb",)

_MOST_OUTPUT = 2000  # characters of one cell's output; logs of a training run are long
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_FENCES = re.compile(r"`{3,}")


def extract(data: bytes) -> Extracted:
    """Cells in order. Raises `DocumentError` (`corrupt`) for what is not a notebook."""
    notebook = parse(decode(data))
    cells = _cells(notebook)
    if cells is None:
        raise failure("corrupt", "not a notebook: it has no list of cells")
    language = _language(notebook)
    parts = [part for cell in cells if isinstance(cell, dict) for part in _parts(cell, language)]
    read = markdown.extract("\n\n".join(parts).encode("utf-8", "replace"))
    return Extracted(read.text, read.title)


def _cells(notebook: Any) -> list[Any] | None:
    """The cells, also those of format 3, which lie in worksheets."""
    if not isinstance(notebook, dict):
        return None
    if isinstance(notebook.get("cells"), list):
        return list(notebook["cells"])
    sheets = notebook.get("worksheets")
    if not isinstance(sheets, list):
        return None
    return [c for sheet in sheets if isinstance(sheet, dict) for c in sheet.get("cells") or ()]


def _language(notebook: dict[str, Any]) -> str:
    metadata = _dict(notebook.get("metadata"))
    kernel, info = _dict(metadata.get("kernelspec")), _dict(metadata.get("language_info"))
    name = kernel.get("language") or info.get("name")
    return name if isinstance(name, str) and name.isprintable() else "python"


def _parts(cell: dict[str, Any], language: str) -> Iterator[str]:
    source = _joined(cell.get("source", cell.get("input"))).strip("\n")
    kind = cell.get("cell_type")
    if kind == "code":
        if source.strip():
            yield _fenced(source, language)
        output = "\n".join(filter(None, map(_output, cell.get("outputs") or ())))
        if output.strip():
            yield _fenced(_short(output.strip("\n")), "text")
    elif kind == "heading":  # format 3
        level = str(cell.get("level", "1"))
        yield "#" * (int(level) if level in tuple("123456") else 1) + " " + source
    else:
        yield source


def _output(output: Any) -> str:
    output = _dict(output)
    if output.get("output_type") in ("error", "pyerr"):
        return f"{_joined(output.get('ename'))}: {_joined(output.get('evalue'))}"
    data = _dict(output.get("data"))
    found = data.get("text/markdown") or data.get("text/plain") or output.get("text")
    return _ANSI.sub("", _joined(found))


def _short(output: str) -> str:
    return output if len(output) <= _MOST_OUTPUT else f"{output[:_MOST_OUTPUT]}…"


def _fenced(text: str, language: str) -> str:
    """A fence longer than any inside."""
    longest = max(map(len, _FENCES.findall(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _joined(source: Any) -> str:
    lines = source if isinstance(source, list) else [source]
    return "".join(line for line in lines if isinstance(line, str))


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
