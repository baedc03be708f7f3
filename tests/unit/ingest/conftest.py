"""Fast embeddings, small PDFs, a knowledge base of both, and files written and read at once."""

from __future__ import annotations

import hashlib
import io
import os
import queue
import zipfile

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings

from glm_rag.errors import DocumentError
from glm_rag_ingest.loaders import image, load, ocr, pdf, versions


class HashEmbeddings(Embeddings):
    """The same text gives the same random vector; four characters count as one token."""

    name = "hash"
    dimension = 16
    max_tokens = 512

    def count_tokens(self, text):
        return 2 + -(-len(text) // 4)

    def embed_query(self, text):
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
        return np.random.default_rng(seed).standard_normal(self.dimension).tolist()

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


@pytest.fixture
def embeddings():
    return HashEmbeddings()


@pytest.fixture
def kb(home, embeddings):
    from glm_rag.knowledge.base import KnowledgeBase

    with KnowledgeBase.open("test", home=home, embeddings=embeddings, create=True) as opened:
        yield opened


@pytest.fixture
def docs(tmp_path):
    """A text, a page and a file that is not read, all older than the clock's resolution."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "rain.txt").write_text("Rain falls on the plain.")
    (folder / "snow.md").write_text("# Snow\n\nSnow falls on the hills.")
    (folder / "table.bin").write_text("a,b")
    for file in folder.iterdir():
        os.utime(file, (1_700_000_000, 1_700_000_000))
    return folder


@pytest.fixture
def delivered():
    """What readers and embedders hand on."""
    return queue.SimpleQueue()


@pytest.fixture(scope="session")
def broken_ocr(tmp_path_factory):
    """A folder with an OCR package that cannot be imported and has no version."""
    folder = tmp_path_factory.mktemp("broken_ocr")
    (folder / "rapidocr_onnxruntime-0.dist-info").mkdir()
    metadata = folder / "rapidocr_onnxruntime-0.dist-info" / "METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: rapidocr-onnxruntime\nVersion: \n")
    (folder / "rapidocr_onnxruntime.py").write_text("raise ImportError('not in tests')")
    return folder


# As this machine has OCR or not; tests see none.
VERSIONS = {loader: loader.VERSION for loader in (image, pdf)}


@pytest.fixture
def installed_versions():
    """Versions of the loaders that use OCR where it is installed."""
    return VERSIONS


@pytest.fixture(autouse=True)
def without_ocr(monkeypatch, broken_ocr):
    """No OCR, whether it is installed or not, as it takes seconds per page; nor in processes."""
    monkeypatch.setattr(ocr, "version", lambda: "")
    for loader, installed in VERSIONS.items():
        monkeypatch.setattr(loader, "VERSION", installed.partition("-ocr")[0] + "-ocr")
    versions.cache_clear()
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(broken_ocr), path))))
    yield
    versions.cache_clear()  # other folders see the loaders as they are


@pytest.fixture
def read(tmp_path):
    """Write bytes under a name and load them."""

    def write_and_load(name, data):
        path = tmp_path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return load(path).documents[0]

    return write_and_load


@pytest.fixture
def reason_of(read):
    def fail(name, data):
        with pytest.raises(DocumentError) as caught:
            read(name, data)
        assert str(caught.value).startswith(f"{caught.value.reason}: ")
        assert "\n" not in str(caught.value)
        return caught.value.reason

    return fail


@pytest.fixture
def make_zip():
    """Bytes of a ZIP archive of the named members."""
    return _make_zip


def _make_zip(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


@pytest.fixture
def make_pdf():
    """Bytes of a PDF with one content stream per page; see `pdf_text` for text."""
    return _make_pdf


@pytest.fixture
def pdf_text():
    """The content stream that writes lines in Helvetica."""
    return _pdf_text


def _pdf_text(*lines):
    shown = " T* ".join(f"({line}) Tj" for line in lines)
    return f"BT /F1 12 Tf 14 TL 72 720 Td {shown} ET"


def _make_pdf(*streams, title=""):
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(streams)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(streams)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, stream in enumerate(streams):
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] "
            f"/Resources << /Font << /F1 3 0 R >> >> /Contents {5 + 2 * i} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    objects.append(f"<< /Title ({title}) >>")
    body, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    return (
        f"{body}xref\n0 {size}\n0000000000 65535 f \n{table}"
        f"trailer\n<< /Size {size} /Root 1 0 R /Info {size - 1} 0 R >>\n"
        f"startxref\n{len(body)}\n%%EOF\n"
    ).encode("latin-1")
