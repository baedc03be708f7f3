"""A tiny model for the tests of one file."""

import pytest

from fakes import tiny_engine


@pytest.fixture(scope="module")
def engine():
    return tiny_engine()
