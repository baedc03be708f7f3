"""PDF with a text layer, read by PDFium."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from glm_rag.errors import DocumentError, MissingDependencyError
from glm_rag.types import PageSpan
from glm_rag_ingest.loaders.base import Extracted, clean_text, failure, garbled_share

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfPage

VERSION = "pdf/1"
MEDIA_TYPE = "application/pdf"

_HEADER_BYTES = 1024  # the header may stand anywhere in here (ISO 32000-1, annex H.3.4.1)
_LEAST_CHARACTERS = 20  # below this, a page with pictures has no text layer
_MOST_GARBLED = 0.25
_SCANNED = "no text layer"
_GARBLED = "garbled text left out"
_DAMAGED = "damaged, left out"
_HYPHEN = "\ufffe"  # what PDFium writes for a hyphen at the end of a line
_HYPHENATED = re.compile(rf"(\w+){_HYPHEN}\s*(\w+)")
_WORD = re.compile(r"\w+(?:-\w+)*")
_WIDE = r"[\u3001-\u303f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef]"
# Characters set far apart come with a space behind each; words of a table row keep theirs.
_SPACED = re.compile(rf"(?<!{_WIDE}){_WIDE}(?: {_WIDE})+(?!{_WIDE})")
_BULLETS = str.maketrans(dict.fromkeys("\uf0b7\uf0a7\uf0d8\uf06c\uf0fc", "•"))
_FULL_LINE = 0.8  # a line this much of the longest was broken by the margin
_SENTENCE_ENDS = "。！？；：.!?;:"
_NO_TITLE = re.compile(
    r"microsoft (?:word|powerpoint)|untitled|无标题"
    r"|\.(?:docx?|pptx?|pdf|jpe?g|png|tiff?|indd|tex)$",
    re.IGNORECASE,
)


def extract(data: bytes) -> Extracted:
    """Text of all pages, with their spans; pages that could not be read become warnings.

    Raises:
        DocumentError: `encrypted`, `corrupt`, or no page has readable text (`no_text`: scanned;
            `garbled`: fonts without a character map).
    """
    with _opened(data) as document:
        pages = [_read_page(document, index) for index in range(len(document))]
        title = _title(document)
    problems = [problem for _, problem in pages]
    if not any(text for text, problem in pages if not problem):
        raise _unreadable(problems)
    text, spans = _assemble([text for text, _ in pages])
    return Extracted(text, title, spans, tuple(_warnings(problems)))


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[PdfDocument]:
    try:
        import pypdfium2
        import pypdfium2.raw
    except ImportError as error:
        raise MissingDependencyError.for_extra("pypdfium2", "documents") from error
    if b"%PDF-" not in data[:_HEADER_BYTES]:
        begins = data[:24].decode("ascii", "replace").replace("\ufffd", "?")
        raise failure("corrupt", f"not a PDF: the file begins with {begins!r}")
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if error.err_code in (pypdfium2.raw.FPDF_ERR_PASSWORD, pypdfium2.raw.FPDF_ERR_SECURITY):
            raise failure("encrypted", "the PDF needs a password; save it without one") from error
        raise failure("corrupt", "PDFium cannot open it; the file is damaged or cut off") from error
    with contextlib.closing(document):
        yield document


def _read_page(document: PdfDocument, index: int) -> tuple[str, str]:
    """Text of one page, and what is wrong with it (empty: nothing)."""
    import pypdfium2

    try:
        with contextlib.closing(document[index]) as page:
            with contextlib.closing(page.get_textpage()) as textpage:
                raw = textpage.get_text_range()
            bare = len(raw.strip()) < _LEAST_CHARACTERS and _has_pictures(page)
    except pypdfium2.PdfiumError:
        return "", _DAMAGED
    if garbled_share(raw.translate(_BULLETS).replace(_HYPHEN, "")) > _MOST_GARBLED:
        return "", _GARBLED
    return normalise(raw), _SCANNED if bare else ""


def _has_pictures(page: PdfPage) -> bool:
    """Whether something other than text is drawn: a scan, or letters as outlines."""
    import pypdfium2.raw as pdfium

    drawn = (pdfium.FPDF_PAGEOBJ_IMAGE, pdfium.FPDF_PAGEOBJ_PATH, pdfium.FPDF_PAGEOBJ_SHADING)
    return any(item.type in drawn for item in page.get_objects(max_depth=4))


def normalise(raw: str) -> str:
    """Repair what PDFium leaves: line ends, line-end hyphens, spaces between Han characters."""
    text = raw.replace("\r\n", "\n").translate(_BULLETS)
    text = _SPACED.sub(lambda match: match.group().replace(" ", ""), text)
    return clean_text(_join_chinese_lines(_mend_hyphens(text)))


def _mend_hyphens(text: str) -> str:
    """Join words cut at a line end; keep the hyphen where the page writes it elsewhere."""
    if _HYPHEN not in text:
        return text
    words = Counter(word.lower() for word in _WORD.findall(text))

    def mend(match: re.Match[str]) -> str:
        joined, hyphenated = match.group(1) + match.group(2), f"{match.group(1)}-{match.group(2)}"
        if words[joined.lower()] == words[hyphenated.lower()]:
            return joined if joined.islower() or joined.istitle() else hyphenated
        return max(joined, hyphenated, key=lambda word: words[word.lower()])

    return _HYPHENATED.sub(mend, text).replace(_HYPHEN, "-")


def _join_chinese_lines(text: str) -> str:
    """Undo the line breaks inside Chinese paragraphs, so that a word is found across them."""
    lines = text.split("\n")
    full = _FULL_LINE * max(len(line) for line in lines)
    parts: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        line = line.rstrip(" ")
        runs_on = (
            len(line) >= max(full, 12)
            and re.match(_WIDE, line[-1])
            and line[-1] not in _SENTENCE_ENDS
            and re.match(_WIDE, following)
        )
        parts.append(line if runs_on else f"{line}\n")
    return "".join(parts)


def _assemble(pages: Sequence[str]) -> tuple[str, tuple[PageSpan, ...]]:
    parts: list[str] = []
    spans: list[PageSpan] = []
    position = 0
    for number, text in enumerate(pages, start=1):
        if not text:
            continue
        if parts:
            parts.append("\n\n")
            position += 2
        parts.append(text)
        spans.append(PageSpan(number, position, position + len(text)))
        position += len(text)
    return "".join(parts), tuple(spans)


def _unreadable(problems: Sequence[str]) -> DocumentError:
    reasons = Counter(problem for problem in problems if problem)
    if not reasons:
        return failure("empty", "no page has any text")
    worst = reasons.most_common(1)[0][0]
    if worst == _GARBLED:
        return failure("garbled", "the text layer has no character map; run OCR on the PDF")
    if worst == _DAMAGED:
        return failure("corrupt", "no page can be read; the file is damaged")
    return failure("no_text", f"scanned: none of {len(problems)} pages has text; run OCR first")


def _warnings(problems: Sequence[str]) -> Iterator[str]:
    for reason in sorted({problem for problem in problems if problem}):
        numbers = [i for i, problem in enumerate(problems, start=1) if problem == reason]
        pages = "page" if len(numbers) == 1 else "pages"
        yield f"{pages} {_ranges(numbers)}: {reason}"


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in short: `1, 3-7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)


def _title(document: PdfDocument) -> str:
    title = " ".join(clean_text(document.get_metadata_value("Title")).split())
    return "" if _NO_TITLE.search(title) else title
