"""`glm-rag kb prompt`: the words that a knowledge base's questions are asked with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from glm_rag.cli.common import ConfigOption, JsonOption, console, print_json
from glm_rag.config import load_config
from glm_rag.errors import ConfigError
from glm_rag.settings import Settings, expand_user


def register(kb: typer.Typer) -> None:
    """Add the command to `glm-rag kb`."""
    kb.command()(prompt)


def prompt(
    name: Annotated[str, typer.Argument(help="Name of the knowledge base.")] = "default",
    new: Annotated[
        Path | None, typer.Option("--set", help="YAML file with texts for this knowledge base.")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Drop this knowledge base's own.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print those in force (default).")] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show or change the words of the prompts about a knowledge base.

    What the file does not name stays as in `prompt.templates` of the settings, or built in. See
    configs/prompts/prompt.yaml for all keys. Passages read ahead (kb warm) must be read again.

    Example: glm-rag kb prompt handbook --set prompt.yaml
    """
    if sum((new is not None, reset, show)) > 1:
        raise ConfigError("choose one of --set, --reset and --show")
    from glm_rag.templates import write_own

    settings = load_config(config)
    own = _own_file(settings, name)
    if new is not None:
        _store(settings, expand_user(new), own)
        _tell(name, "set", json=json)
    elif reset:
        write_own(own, None)
        _tell(name, "reset", json=json)
    else:
        _show(settings, own, json=json)


def _own_file(settings: Settings, name: str) -> Path:
    from glm_rag.stores import local_folder
    from glm_rag.templates import PROMPT_FILE

    return local_folder(settings, name) / PROMPT_FILE


def _store(settings: Settings, new: Path, own: Path) -> None:
    """Keep a file that is known to be usable, byte by byte, so that its comments stay."""
    from glm_rag.build import build_templates
    from glm_rag.templates import write_own

    build_templates(settings, new)
    write_own(own, new.read_bytes())


def _show(settings: Settings, own: Path, *, json: bool) -> None:
    from glm_rag.build import build_templates
    from glm_rag.templates import to_yaml

    templates = build_templates(settings, own if own.is_file() else None)
    if json:
        print_json({language: template.model_dump() for language, template in templates.items()})
    else:
        typer.echo(to_yaml(templates), nl=False)


def _tell(name: str, done: str, *, json: bool) -> None:
    if json:
        print_json({"knowledge_base": name, "prompt": done})
    else:
        said = "has its own prompt now" if done == "set" else "has no prompt of its own"
        console.print(Text(f"{name} {said}."))
