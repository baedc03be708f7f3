"""Pictures (.png, .jpg, .tif, ...): the text that OCR recognises in them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from glm_rag_ingest.loaders import ocr
from glm_rag_ingest.loaders.base import Extracted, failure
from glm_rag_ingest.loaders.pages import join_pages, page_list

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = f"image/1-ocr{ocr.version()}"
MEDIA_TYPE = "image/*"
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_MOST_PIXELS = 200_000_000  # A0 at 300 dpi has 140 million; each takes 3 bytes
_MOST_FRAMES = 1000


def extract(data: bytes) -> Extracted:
    """Recognise the text of every frame, each a page.

    Raises:
        DocumentError: `unsupported` without OCR or for what is too large, `no_text`, `corrupt`.
    """
    if reason := ocr.why_not():
        raise failure("unsupported", f"pictures are read by OCR only; {reason}")
    clock = ocr.Clock()
    texts: list[str] = []
    skipped: list[int] = []
    for number, pixels in enumerate(_frames(data), start=1):
        if clock.is_over():
            skipped.append(number)
            continue
        texts.append(ocr.recognise(pixels))
    text, pages = join_pages(texts)
    if not text:
        raise failure("no_text", "OCR finds no text in the picture")
    recognised = f"{page_list([page.number for page in pages])}: text recognised by OCR"
    late = f"{page_list(skipped)}: left out, OCR takes more than {ocr.SECONDS:g} s"
    return Extracted(text, "", pages, (recognised, late) if skipped else (recognised,))


def _frames(data: bytes) -> Iterator[NDArray[np.uint8]]:
    """Pixels, blue first, of each frame: upright, on white, at most as large as OCR reads."""
    import numpy as np
    from PIL import Image, ImageOps, ImageSequence

    with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
        warnings.simplefilter("ignore")  # about sizes, which are checked here
        for number, frame in enumerate(ImageSequence.Iterator(image)):
            if frame.width * frame.height > _MOST_PIXELS or number >= _MOST_FRAMES:
                raise failure("unsupported", "the picture is too large; scale it down")
            upright = ImageOps.exif_transpose(_on_white(frame))
            upright.thumbnail((ocr.LONGEST_SIDE, ocr.LONGEST_SIDE))
            yield np.asarray(upright)[:, :, ::-1].copy()


def _on_white(frame: Any) -> Any:
    from PIL import Image

    if not frame.has_transparency_data:
        return frame.convert("RGB")
    layer = frame.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")
