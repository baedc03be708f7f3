"""`/kb/{name}/prompt`: the words that a knowledge base's questions are asked with."""

from __future__ import annotations

from pathlib import Path

import yaml
from fastapi import APIRouter

from glm_rag.build import build_templates, templates_for
from glm_rag.config import read_yaml
from glm_rag.errors import ConfigError
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.settings import Settings
from glm_rag.templates import PROMPT_FILE, changed_templates, write_own
from glm_rag_server.described import BASES, errors
from glm_rag_server.errors import ApiError
from glm_rag_server.kb import requests, schemas
from glm_rag_server.kb.state import ADMIN, READ, Context, Opened

router = APIRouter(prefix="/kb", tags=[BASES], responses=errors(404, 409))


@router.get(
    "/{name}/prompt",
    summary="Show the words of a knowledge base's prompts",
    response_description="all of them, and which are its own",
    dependencies=[READ],
)
def show_prompt(kb: Opened, context: Context) -> schemas.Prompt:
    """Every text in force, by language: built in, then as `prompt.templates` of the settings says,
    then the knowledge base's own.
    """
    return _prompt(kb, context.settings)


@router.put(
    "/{name}/prompt",
    summary="Give its prompts words of their own",
    response_description="all words in force from now on",
    responses=errors(400, 408, 413),
    dependencies=[ADMIN],
)
def set_prompt(kb: Opened, wanted: requests.NewPrompt, context: Context) -> schemas.Prompt:
    """They take the place of those it had; texts that are not named stay as in the settings. The
    next question is asked with them. Passages that were read ahead must be read again.
    """
    settings = context.settings
    try:
        changed_templates(wanted.templates, build_templates(settings, None), "templates")
    except ConfigError as error:
        raise ApiError(400, str(error), param="templates") from error
    text = yaml.safe_dump(wanted.templates, allow_unicode=True, sort_keys=False, width=10**6)
    write_own(_own(kb), text.encode())
    return _prompt(kb, settings)


@router.delete(
    "/{name}/prompt",
    summary="Drop the own words of its prompts",
    response_description="all words in force from now on",
    dependencies=[ADMIN],
)
def reset_prompt(kb: Opened, context: Context) -> schemas.Prompt:
    """Its questions are asked with the words of the settings again; without own ones nothing
    changes.
    """
    write_own(_own(kb), None)
    return _prompt(kb, context.settings)


def _own(kb: KnowledgeBase) -> Path:
    return kb.path / PROMPT_FILE


def _prompt(kb: KnowledgeBase, settings: Settings) -> schemas.Prompt:
    templates = templates_for(settings, kb)
    own = read_yaml(_own(kb), "the prompt") if _own(kb).is_file() else {}
    return schemas.Prompt(
        templates={name: one.model_dump() for name, one in templates.items()}, own=dict(own)
    )
