"""PDF: the text layer as PDFium reads it, and OCR for pages that have none."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glm_rag.errors import DocumentError, MissingDependencyError
from glm_rag_ingest.loaders import ocr
from glm_rag_ingest.loaders.base import Extracted, clean_text, failure, garbled_share
from glm_rag_ingest.loaders.pages import join_pages, page_list
from glm_rag_ingest.loaders.pdf_text import (
    BULLETS,
    HYPHEN,
    count_words,
    normalise,
    without_running_lines,
)

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfPage

# Changes when OCR is installed: then files with pages that need it are read again.
VERSION = f"pdf/2-ocr{ocr.version()}"
MEDIA_TYPE = "application/pdf"
SUFFIXES = (".pdf",)

_HEADER_BYTES = 1024  # the header may stand anywhere in here (ISO 32000-1, annex H.3.4.1)
_LEAST_CHARACTERS = 20  # below this, a page with pictures has no text layer
_MOST_GARBLED = 0.25
_SCANNED = "no text layer"
_GARBLED = "garbled text left out"
_DAMAGED = "damaged, left out"
_RECOGNISED = "text recognised by OCR"
_READ = ("", _RECOGNISED)
_CID = re.compile(r"\(cid:\d+\)")  # how some tools write what has no character map
_NO_TITLE = re.compile(
    r"microsoft (?:word|powerpoint)|untitled|无标题"
    r"|\.(?:docx?|pptx?|pdf|jpe?g|png|tiff?|indd|tex)$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Page:
    """What PDFium reads on a page, and what is wrong with that (empty: nothing)."""

    raw: str
    problem: str


def extract(data: bytes) -> Extracted:
    """Text of all pages, with their spans; pages that could not be read become warnings.

    Pages without a usable text layer are recognised by OCR where it is installed.

    Raises:
        DocumentError: `encrypted`, `corrupt`, or no page has readable text (`no_text`: scanned;
            `garbled`: fonts without a character map).
    """
    with _opened(data) as document:
        pages = [_read_page(document, index) for index in range(len(document))]
        raws = without_running_lines([page.raw for page in pages])
        words = count_words(raws)
        texts = [normalise(raw, words) for raw in raws]
        problems = [page.problem for page in pages]
        _recognise(document, texts, problems)
        title = _title(document)
    if not any(text and problem in _READ for text, problem in zip(texts, problems, strict=True)):
        raise _unreadable(problems)
    text, spans = join_pages(texts)
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


def _read_page(document: PdfDocument, index: int) -> _Page:
    import pypdfium2

    try:
        with contextlib.closing(document[index]) as page:
            with contextlib.closing(page.get_textpage()) as textpage:
                raw = textpage.get_text_range()
            bare = len(raw.strip()) < _LEAST_CHARACTERS and _has_pictures(page)
    except pypdfium2.PdfiumError:
        return _Page("", _DAMAGED)
    shown = _CID.sub("\ufffd", raw.translate(BULLETS).replace(HYPHEN, ""))
    if garbled_share(shown) > _MOST_GARBLED:
        return _Page("", _GARBLED)
    return _Page(raw, _SCANNED if bare else "")


def _recognise(document: PdfDocument, texts: list[str], problems: list[str]) -> None:
    """Read pages without text by OCR, and change their texts and problems in place."""
    wanted = [i for i, problem in enumerate(problems) if problem in (_SCANNED, _GARBLED)]
    reason = ocr.why_not() if wanted else ""
    clock = ocr.Clock()
    for index in wanted:
        if reason:
            problems[index] = f"{problems[index]}; {reason}"
        elif clock.is_over():
            problems[index] = f"{problems[index]}; OCR takes more than {ocr.SECONDS:g} s"
        elif len(found := _recognised(document, index)) > len(texts[index]):
            texts[index], problems[index] = found, _RECOGNISED


def _recognised(document: PdfDocument, index: int) -> str:
    try:
        with contextlib.closing(document[index]) as page:
            scale = min(ocr.DOTS_PER_INCH / 72, ocr.LONGEST_SIDE / max(1.0, *page.get_size()))
            return ocr.recognise(page.render(scale=scale).to_numpy())
    except Exception:  # noqa: BLE001  # one page that cannot be drawn must not cost the others
        return ""


def _has_pictures(page: PdfPage) -> bool:
    """Whether something other than text is drawn: a scan, or letters as outlines."""
    import pypdfium2.raw as pdfium

    drawn = (pdfium.FPDF_PAGEOBJ_IMAGE, pdfium.FPDF_PAGEOBJ_PATH, pdfium.FPDF_PAGEOBJ_SHADING)
    return any(item.type in drawn for item in page.get_objects(max_depth=4))


def _unreadable(problems: Sequence[str]) -> DocumentError:
    reasons = Counter(problem for problem in problems if problem not in _READ)
    if not reasons:
        return failure("empty", "no page has any text")
    worst, _, advice = reasons.most_common(1)[0][0].partition("; ")
    advice = advice or "OCR finds none either"
    if worst == _GARBLED:
        return failure("garbled", f"the text layer has no character map; {advice}")
    if worst == _DAMAGED:
        return failure("corrupt", "no page can be read; the file is damaged")
    return failure("no_text", f"scanned: none of {len(problems)} pages has text; {advice}")


def _warnings(problems: Sequence[str]) -> Iterator[str]:
    for reason in sorted({problem for problem in problems if problem}):
        numbers = [i for i, problem in enumerate(problems, start=1) if problem == reason]
        yield f"{page_list(numbers)}: {reason}"


def _title(document: PdfDocument) -> str:
    title = " ".join(clean_text(document.get_metadata_value("Title")).split())
    return "" if _NO_TITLE.search(title) else title
