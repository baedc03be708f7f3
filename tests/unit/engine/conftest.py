"""Tiny models: one that may serve several at a time, one that repeats itself."""

import pytest
from guessing import copying_engine

from tiny_checkpoints import tiny_engine


@pytest.fixture
def engine():
    engine = tiny_engine()
    yield engine
    engine.serve(None)


@pytest.fixture(scope="module")
def looping():
    """A model that mostly follows one id by another: what it says repeats, so guesses hold."""
    return copying_engine()
