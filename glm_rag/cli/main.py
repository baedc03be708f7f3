"""The `glm-rag` command. Commands of other packages join through `glm_rag.commands`."""

from __future__ import annotations

import io
import sys
from importlib.metadata import entry_points
from typing import Annotated

import typer

from glm_rag._version import __version__
from glm_rag.cli import answers, doctor, feedback, kb, model, quickstart
from glm_rag.cli.eval import command as evaluation
from glm_rag.errors import GlmRagError

app = typer.Typer(
    name="glm-rag",
    help="Ask your own documents, in Chinese and English, on your own machine.",
    epilog="Start with `glm-rag quickstart`.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"glm-rag {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Ask your own documents, in Chinese and English, on your own machine."""


for _part in (quickstart, answers, kb, feedback, model, evaluation, doctor):
    _part.register(app)
for _entry in sorted(entry_points(group="glm_rag.commands"), key=lambda entry: entry.name):
    _entry.load()(app)


def main() -> None:
    """Run the command line; errors become one line on stderr and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # names and texts may not fit the locale
    try:
        app()
    except GlmRagError as error:
        message = " ".join(str(error).split())
        sys.stderr.write(f"glm-rag: {message}\n")
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has gone, as in `glm-rag ... | head`
        sys.stderr.close()
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("glm-rag: interrupted\n")
        sys.exit(130)
