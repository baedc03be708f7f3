"""Source code is cut by definitions and between lines."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from splitting_laws import characters, check_laws, words

from glm_rag_ingest.splitting.definitions import code_language, definitions

PYTHON = '''"""A module."""

import os


# About Foo.
@decorated(
    1,
)
class Foo(Base):
    """It does things."""

    x = 1

    # About bar.
    @staticmethod
    def bar(
        a: int,
        b: int,
    ) -> int:
        """Add."""

        return a + b

    async def baz(self): return 3


if os.name:

    def inner():
        def nested():
            return 1

        return nested


CONSTANT = 1
'''

JAVA = """package a;

/**
 * A thing.
 */
@Component
public class Foo<T> extends Bar<T> {
    private final int x = compute(3);

    /**
     * Makes it.
     */
    @Override
    public List<String> make(int a) throws IOException {
        if (a > 3) {
            return other(a);
        }
        for (String s : b) {
            foo(s);
        }
    }

    static void run() { go(); }
}
"""

GO = """package main

// Server serves.
type Server struct {
\tport int
}

func (s *Server) Start() error {
\tif err := s.listen(); err != nil {
\t\treturn err
\t}
\treturn nil
}
"""

C = """#include <stdio.h>

static int helper(const char *name, int count)
{
    while (count) {
        printf("%s", name);
    }
    return 0;
}

struct point {
    int x;
};

int main(int argc, char **argv) {
    return helper(argv[0],
                  argc);
}
"""

PYTHON_2 = """def old(a):
    print "hello"
    return a

class Older:
    def method(self):
        print "x"
"""


def found(text, language):
    return [
        (section.title, text[section.start : section.body].strip().split("\n")[0])
        for section in definitions(text, 0, len(text), language)
    ]


def test_python_is_cut_by_its_syntax_tree_with_comments_and_decorators():
    assert found(PYTHON, "python") == [
        ("class Foo", "# About Foo."),
        ("def bar", "# About bar."),
        ("async def baz", "async def baz(self): return 3"),
        ("def inner", "def inner():"),
    ]
    bar = definitions(PYTHON, 0, len(PYTHON), "python")[1]
    assert PYTHON[bar.body :].startswith('"""Add."""')
    assert PYTHON[: bar.end].endswith("return a + b")


@pytest.mark.parametrize(
    ("text", "language", "titles"),
    [
        (
            JAVA,
            "java",
            [
                "public class Foo<T> extends Bar<T>",
                "public List<String> make(int a) throws IOException",
                "static void run()",
            ],
        ),
        (GO, "go", ["type Server struct", "func (s *Server) Start() error"]),
        (
            C,
            "csrc",
            [
                "static int helper(const char *name, int count)",
                "struct point",
                "int main(int argc, char **argv)",
            ],
        ),
        (PYTHON_2, "python", ["def old(a)", "class Older", "def method(self)"]),
    ],
    ids=["java", "go", "c", "python 2"],
)
def test_other_languages_are_cut_by_lines_and_indents(text, language, titles):
    sections = definitions(text, 0, len(text), language)
    assert [section.title for section in sections] == titles


def test_comments_above_belong_to_what_they_are_about():
    make = definitions(JAVA, 0, len(JAVA), "java")[1]
    assert JAVA[make.start :].startswith("/**\n     * Makes it.")
    assert JAVA[: make.end].endswith("    }")


def test_a_method_has_its_class_as_path_and_as_much_of_it_as_needed():
    text = "class Foo:\n" + "\n".join(
        f"    def method_{i}(self):\n" + f"        self.value = {i}\n" * 12 for i in range(4)
    )
    chunks = check_laws(text, characters, 200, 30, media_type="text/x-python")
    for chunk in chunks:
        inside = text[: chunk.start].rfind("def method_")
        if chunk.text.startswith("def"):
            assert chunk.headings == ("class Foo",)
        elif inside >= 0:
            name = text[inside : inside + len("def method_0")]
            assert chunk.headings == ("class Foo", name)
            assert text[slice(*chunk.section)].startswith(name)
    assert {chunk.headings for chunk in chunks} >= {
        ("class Foo", f"def method_{i}") for i in range(4)
    }


def test_a_definition_that_fits_is_not_torn():
    functions = [f"def f{i}(a):\n    x = a + {i}\n\n    return x * {i}" for i in range(30)]
    text = "\n\n\n".join(functions)
    texts = [c.text for c in check_laws(text, characters, 120, 30, media_type="text/x-python")]
    assert all(any(function in text for text in texts) for function in functions)


def test_fenced_code_is_cut_between_lines_and_stays_in_its_fence():
    code = "\n".join(f"value_{i} = compute(a. b, {i})  # see x. And y" for i in range(30))
    text = f"# Title\n\nRun this:\n\n```python\n{code}\n```\n\nAfter it."
    chunks = check_laws(text, characters, 200, 30)
    lines = set(text.split("\n"))
    for chunk in chunks:
        assert set(chunk.text.split("\n")) <= lines
        assert not chunk.text.endswith(("```python", "Run this:"))
        assert not chunk.text.startswith("```\n")
    assert {chunk.headings for chunk in chunks[1:]} == {("Title",)}


@pytest.mark.parametrize("media_type", ["text/x-python", "text/x-java", "text/x-c"])
@settings(max_examples=80, suppress_health_check=list(HealthCheck))
@given(
    lines=st.lists(
        st.tuples(
            st.sampled_from(["", "    ", "        ", "\t"]),
            st.one_of(
                st.sampled_from(
                    [
                        "def f():",
                        "class A:",
                        "pass",
                        "@x",
                        "# c",
                        "}",
                        "void f() {",
                        " * x",
                        "/**",
                        "return 1",
                        "if x:",
                        "struct P {",
                        "*/",
                        "",
                        "f(a,",
                        '"""',
                    ]
                ),
                st.text("ab(){}:;#@\r\f\x00=,'\" \\", max_size=30),
            ),
        ).map("".join),
        max_size=30,
    ),
    count=st.sampled_from([characters, words]),
    chunk_tokens=st.integers(24, 80),
)
@example(lines=PYTHON.split("\n"), count=characters, chunk_tokens=60)
@example(lines=JAVA.split("\n"), count=characters, chunk_tokens=60)
def test_the_laws_hold_for_code_and_lines_stay_whole(media_type, lines, count, chunk_tokens):
    text = "\n".join(lines)
    chunks = check_laws(text, count, chunk_tokens, media_type=media_type)
    position = 0
    for line in lines:
        start, end = position + len(line) - len(line.lstrip()), position + len(line.rstrip())
        position += len(line) + 1
        if start < end and count(text[start:end]) * 3 <= chunk_tokens:
            assert any(chunk.start <= start and end <= chunk.end for chunk in chunks)


@pytest.mark.parametrize("media_type", ["text/plain", "text/markdown", "text/html", "text/x-rst"])
def test_prose_is_no_code(media_type):
    assert code_language(media_type) is None


def test_a_hundred_thousand_lines_take_linear_time():
    text = textwrap.dedent(PYTHON) * 200
    counted = 0

    def count(piece):
        nonlocal counted
        counted += len(piece)
        return characters(piece)

    for media_type in ("text/x-python", "text/x-java"):
        counted = 0
        check_laws(text, count, 256, media_type=media_type)
        assert counted < 14 * len(text)
