"""reStructuredText reads as its built page."""

from __future__ import annotations

import pytest

from glm_rag_ingest.loaders.restructured import extract


def text_of(source):
    return extract(source.encode()).text


def test_levels_follow_the_order_in_which_underlines_appear():
    source = (
        "=====\nTitle\n=====\n\nIntro.\n\nOne\n===\n\nTwo\n---\n\nThree\n~~~~~\n\nFour\n---\n\nx"
    )
    found = extract(source.encode())
    assert found.title == "Title"
    assert found.text == "# Title\n\nIntro.\n\n## One\n\n### Two\n\n#### Three\n\n### Four\n\nx"


def test_a_chinese_heading_may_have_a_shorter_underline():
    assert text_of("用户指南手册\n======\n\n正文。") == "# 用户指南手册\n\n正文。"


def test_roles_links_and_literals_read_as_shown():
    source = (
        "See :ref:`the guide <guide>`, :py:class:`~pkg.mod.Klass`, :func:`run`, ``a * b``,\n"
        "`our site <https://example.org>`_, `Section`_, |version| and [1]_."
    )
    assert text_of(source) == (
        "See the guide, Klass, run, `a * b`,\nour site, Section, version and [1]."
    )


def test_directives_keep_what_readers_see():
    source = (
        ".. _label:\n\n.. contents::\n   :depth: 2\n\n.. toctree::\n\n   a\n   b\n\n"
        ".. warning:: Hot.\n\n   Do not ``touch``.\n\n.. code-block:: python\n   :linenos:\n\n"
        "   def f():\n       return 1\n\n.. image:: a.png\n   :alt: x\n\n.. a comment\n"
        "   goes on\n\n"
        ".. figure:: b.png\n\n   The caption.\n\n.. [1] The note.\n\nEnd."
    )
    assert text_of(source) == (
        "Warning: Hot.\n\nDo not `touch`.\n\n```python\ndef f():\n    return 1\n```\n\n"
        "The caption.\n\n[1] The note.\n\nEnd."
    )


def test_literal_blocks_are_code_and_not_looked_into():
    source = "Like this::\n\n   Title\n   =====\n   :ref:`x`\n\nafter\n\n::\n\n   $ ls"
    assert text_of(source) == (
        "Like this:\n\n```\nTitle\n=====\n:ref:`x`\n```\n\nafter\n\n```\n$ ls\n```"
    )


@pytest.mark.parametrize(
    "table",
    [
        "+---+---+\n| a | b |\n+===+===+\n| 1 | 2 |\n+---+---+",
        "=====  =====\nA      B\n=====  =====\n1      2\n=====  =====",
    ],
)
def test_tables_stay_as_they_are(table):
    assert text_of(f"Before.\n\n{table}\n\nAfter.") == f"Before.\n\n{table}\n\nAfter."


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "source",
    [
        "`" * 200_000,
        ":a" * 200_000,
        "|x " * 200_000,
        "``" * 100_001,
        "=\n" * 50_000,
        "===\nx\n" * 50_000,
        ".. a\n" * 50_000,
        "x::\n" * 50_000,
        "[" * 200_000,
    ],
)
def test_hostile_source_takes_time_in_proportion(source):
    extract(source.encode())
