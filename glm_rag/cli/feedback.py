"""`glm-rag feedback`: what readers of the page thought of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from glm_rag.cli.common import ConfigOption, JsonOption, console, print_json

_VOTES = {"up": Text("+", style="green"), "down": Text("-", style="red")}
_QUESTION = 120


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(feedback)


def feedback(
    kb: Annotated[
        str | None, typer.Option("--kb", help="Only of this knowledge base; default: of all.")
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show or export the thumbs and words that answers got in the browser.

    With --json: question, answer, citations, vote, words, kb and asked_at of each, oldest first,
    of all users; nothing says whose it is.

    Example: glm-rag feedback --kb handbook --json > feedback.json
    """
    from glm_rag.config import load_config
    from glm_rag.conversations import CONVERSATIONS_FILE, ConversationStore

    path = load_config(config).home / CONVERSATIONS_FILE
    rows: list[dict[str, Any]] = []
    if path.exists():
        store = ConversationStore(path)
        rows = list(store.feedback(kb=kb))
        store.close()
    if json:
        print_json(rows)
    elif rows:
        console.print(_table(rows))
    else:
        console.print("No feedback yet: give thumbs to answers in glm-rag ui.")


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("vote")
    table.add_column("asked")
    table.add_column("kb", overflow="fold", max_width=16)
    table.add_column("question", overflow="fold")
    table.add_column("words", overflow="fold")
    for row in rows:
        question = " ".join(row["question"].split())[:_QUESTION]
        words = " ".join(row["words"].split())
        day = row["asked_at"][:10]
        table.add_row(_VOTES[row["vote"]], day, Text(row["kb"]), Text(question), Text(words))
    return table
