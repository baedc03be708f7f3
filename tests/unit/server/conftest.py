"""A server in this process over stand-ins: no weights, no index."""

from __future__ import annotations

import pytest
from server_fakes import FakeModels, client_of

from glm_rag.settings import Settings
from glm_rag_server.app import create_app
from glm_rag_server.keys import KeyStore


@pytest.fixture
def settings(home):
    """Settings of a server over an empty data folder."""
    return Settings(home=home)


@pytest.fixture
def models(settings):
    """What answers; tests change it."""
    return FakeModels(settings)


@pytest.fixture
def keys(home):
    """The key store of the data folder, without keys."""
    return KeyStore(home / "api-keys.sqlite")


@pytest.fixture
def app(settings, models):
    """The application."""
    return create_app(settings, models=models)


@pytest.fixture
async def client(app):
    """A client of it on this computer."""
    async with client_of(app) as found:
        yield found
