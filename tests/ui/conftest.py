"""Fixtures of the page's tests."""

import pytest

PROFILE = "0123456789abcdef" * 2


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
