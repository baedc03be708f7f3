"""Every Python block of the READMEs runs as it stands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = [
    pytest.param(block, id=f"{name} {number}")
    for name in ("README.md", "README.zh.md")
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    )
]


def test_the_readmes_have_python_blocks():
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize("block", BLOCKS)
def test_a_python_block_of_the_readme_runs(quickstarted, monkeypatch, capsys, block):
    monkeypatch.setenv("GLM_RAG_HOME", str(quickstarted.home))
    monkeypatch.setenv("GLM_RAG_GENERATION__MAX_TOKENS", "32")
    exec(compile(block, "README", "exec"), {})
    assert capsys.readouterr().out.strip()
