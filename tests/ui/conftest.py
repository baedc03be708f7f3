"""Fixtures of the page's tests."""

import pytest

from ui_fakes import PROFILE


@pytest.fixture
def profile(monkeypatch):
    """The profile of every browser; a test that sets another one is somebody else."""
    from glm_rag_ui import access

    def be(name: str) -> str:
        monkeypatch.setattr(access, "profile", lambda: name)
        return name

    be(PROFILE)
    return be


@pytest.fixture
def backend(monkeypatch, profile):
    """The page's seam replaced by a scripted one with one filled knowledge base."""
    streamlit = pytest.importorskip("streamlit")
    import ui_fakes
    from glm_rag import suggestions

    fake = ui_fakes.FakeBackend()
    stored = [ui_fakes.document_info("staff handbook.md"), ui_fakes.document_info("员工手册.docx")]
    fake.bases["handbook"] = ui_fakes.FakeKnowledgeBase(stored)
    fake.install(monkeypatch)
    monkeypatch.setattr(suggestions, "suggest_questions", fake.suggest_questions)
    streamlit.cache_resource.clear()
    yield fake
    streamlit.cache_resource.clear()


@pytest.fixture
def words(monkeypatch):
    """An embedder without a model behind every knowledge base of the page."""
    streamlit = pytest.importorskip("streamlit")
    from word_embeddings import WordEmbeddings

    embeddings = WordEmbeddings()
    monkeypatch.setattr("glm_rag.embeddings.create_embeddings", lambda _settings: embeddings)
    streamlit.cache_resource.clear()
    yield embeddings
    embeddings.gate.set()
    streamlit.cache_resource.clear()


@pytest.fixture
def folder(tmp_path):
    """Files of a user."""
    files = tmp_path / "files"
    files.mkdir()
    return files


@pytest.fixture
def handbook(words, folder):
    """A knowledge base with three documents and one file that cannot be read."""
    import library

    from glm_rag.config import load_config
    from glm_rag_ingest.pipeline import ingest

    texts = {"leave.md": library.LEAVE, "canteen.txt": library.CANTEEN, "手册.md": library.CHINESE}
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    (folder / "torn.pdf").write_bytes(b"%PDF-1.7 torn")
    report = ingest([folder], "handbook", config=load_config())
    assert (report.num_added, len(report.failures)) == (3, 1)
    return folder
