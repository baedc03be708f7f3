"""Fixtures of the page's tests."""

import pytest


@pytest.fixture
def backend(monkeypatch):
    """The page's seam replaced by a scripted one with one filled knowledge base."""
    streamlit = pytest.importorskip("streamlit")
    import ui_fakes

    fake = ui_fakes.FakeBackend()
    stored = [ui_fakes.document_info("staff handbook.md"), ui_fakes.document_info("员工手册.docx")]
    fake.bases["handbook"] = ui_fakes.FakeKnowledgeBase(stored)
    fake.install(monkeypatch)
    streamlit.cache_resource.clear()
    yield fake
    streamlit.cache_resource.clear()
