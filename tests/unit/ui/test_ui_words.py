"""The words of the pages do not get into each other's way."""

import importlib
import pkgutil
from collections import Counter

from glm_rag_ui import words


def test_no_two_pages_give_one_name_to_different_words():
    modules = [
        importlib.import_module(f"{words.__name__}.{found.name}")
        for found in pkgutil.iter_modules(words.__path__)
    ]
    counts = Counter(key for module in modules for key in module.TEXTS)
    assert [key for key, count in counts.items() if count > 1] == []
