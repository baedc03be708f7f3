"""Real files of text, mail and books read as a person sees them."""

from __future__ import annotations

import pytest
from expectations_text import ABSENT, MEMBERS, PHRASES, REASONS, TITLES

from glm_rag.errors import DocumentError
from glm_rag_ingest.loaders import load


def _plain(text):
    return " ".join(text.split())


@pytest.mark.parametrize("name", PHRASES)
def test_the_text_holds_what_a_person_sees(test_data, name):
    loaded = load(test_data / "documents" / name)
    document = loaded.documents[0]
    text = _plain(document.text)
    assert [phrase for phrase in PHRASES[name] if phrase not in text] == []
    assert text.index(PHRASES[name][0]) < text.rindex(PHRASES[name][-1])
    assert [mark for mark in ABSENT.get(name, ()) if mark in document.text] == []
    assert "\ufffd" not in text
    assert document.warnings == ()
    assert loaded.failures == ()


@pytest.mark.parametrize("name", MEMBERS)
def test_members_are_documents_of_their_own(test_data, name):
    document, *members = load(test_data / "documents" / name).documents
    texts = {member.source: member.text for member in members}
    assert texts == {f"{document.source}#{path}": text for path, text in MEMBERS[name].items()}
    assert all(member.container == document.source for member in members)


@pytest.mark.parametrize("name", TITLES)
def test_the_title_is_the_documents_own(test_data, name):
    assert load(test_data / "documents" / name).documents[0].title == TITLES[name]


@pytest.mark.parametrize("name", REASONS)
def test_what_cannot_be_read_says_why(test_data, name):
    with pytest.raises(DocumentError) as caught:
        load(test_data / "documents" / name)
    assert caught.value.reason == REASONS[name]
