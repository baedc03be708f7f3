"""A store of conversations in a folder of its own."""

import pytest

from glm_rag.conversations import ConversationStore


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "conversations.sqlite"


@pytest.fixture
def store(path):
    opened = ConversationStore(path)
    yield opened
    opened.close()
