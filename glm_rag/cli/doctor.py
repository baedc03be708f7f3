"""`glm-rag doctor`: what is installed, what would run, and what is wrong."""

from __future__ import annotations

import typer
from rich.table import Table
from rich.text import Text

from glm_rag.cli.common import ConfigOption, JsonOption, console, print_json
from glm_rag.config import load_config
from glm_rag.diagnosis import diagnose

_STYLES = {"ok": "green", "warning": "yellow", "error": "red"}


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(doctor)


def doctor(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Report what is installed, which backend would run and why; exit code 1 on an error.

    Example: glm-rag doctor
    """
    findings = list(diagnose(load_config(config)))
    if json:
        print_json(findings)
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column()
        table.add_column()
        table.add_column(overflow="fold")
        for finding in findings:
            status = Text(finding.status, style=_STYLES[finding.status])
            table.add_row(status, finding.subject, Text(finding.detail))
        console.print(table)
    raise typer.Exit(int(any(finding.status == "error" for finding in findings)))
