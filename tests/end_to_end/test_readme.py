"""Every Python block of the READMEs runs as it stands, and its questions are answered."""

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
def test_a_python_block_of_the_readme_runs_and_its_questions_are_answered(
    quickstarted, monkeypatch, capsys, block
):
    monkeypatch.setenv("GLM_RAG_HOME", str(quickstarted.home))
    monkeypatch.setenv("GLM_RAG_GENERATION__MAX_TOKENS", "32")
    made = {}
    exec(compile(block, "README", "exec"), made)
    assert capsys.readouterr().out.strip()
    answers = [made["answer"], *([made["delta"].answer] if "delta" in made else [])]
    for answer in answers:
        assert not answer.abstained, answer.question
        assert answer.supported, answer.text
