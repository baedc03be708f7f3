"""The documentation says what the program does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_the_command_reference_is_what_the_commands_print(tmp_path):
    written = tmp_path / "cli.md"
    command = "-m typer glm_rag.cli.main utils docs --name glm-rag --title Commands --output"
    arguments = [sys.executable, *command.split(), str(written)]
    subprocess.run(arguments, check=True, capture_output=True)
    current = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written.read_text(encoding="utf-8") == current, "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_holds_a_placeholder(page):
    assert not re.search(r"@[A-Z_]+@|TODO|TBD", page.read_text(encoding="utf-8"))
