"""The only place that reads configuration files and environment variables; see `settings`.

Order, later wins: defaults here < config file < `GLM_RAG_*` environment < arguments.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs
import yaml
from pydantic import BaseModel, ValidationError

from glm_rag.errors import ConfigError
from glm_rag.settings import Settings, expand_user

ENV_PREFIX = "GLM_RAG_"
# Variables with the prefix that are not settings: where the data lives, which file to read,
# and where the tests find their data.
_RESERVED_ENV = {"GLM_RAG_HOME", "GLM_RAG_CONFIG", "GLM_RAG_TEST_DATA"}


def default_home() -> Path:
    """`GLM_RAG_HOME`, else the platform's user data directory."""
    named = os.environ.get("GLM_RAG_HOME")
    return expand_user(named) if named else Path(platformdirs.user_data_dir("glm-rag"))


def load_config(
    file: str | Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read settings from a file, the environment and `overrides`.

    Args:
        file: YAML file; default `$GLM_RAG_CONFIG`, else `config.yaml` in the data folder if there.
        overrides: nested mapping, or dotted keys (`{"model.name": "..."}`); `None` values are
            ignored so that unset command-line options pass through.
        environ: default `os.environ`. `GLM_RAG_MODEL__NAME=x` sets `model.name`.

    Raises:
        ConfigError: unreadable file, unknown key (the nearest known one is named), wrong value.
    """
    environ = os.environ if environ is None else environ
    data: dict[str, Any] = {"home": default_home()}
    chosen = _config_file(file, environ, data["home"])
    if chosen is not None:
        _merge(data, read_yaml(chosen, f"config file {chosen}"), origin=str(chosen))
    _merge(data, _from_environment(environ), origin="the environment")
    _merge(data, _nested(overrides or {}), origin="the arguments")
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error)) from error


def _config_file(file: str | Path | None, environ: Mapping[str, str], home: Path) -> Path | None:
    named = file or environ.get("GLM_RAG_CONFIG")
    if named:
        return expand_user(named)
    default = home / "config.yaml"
    return default if default.is_file() else None


def read_yaml(path: Path, name: str) -> dict[str, Any]:
    """The sections of a YAML file; an empty one has none.

    Args:
        name: what the file is called in errors, its path included.

    Raises:
        ConfigError: unreadable, no YAML, or no sections.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {name}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"{name} is not valid YAML: {detail}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{name} must hold sections of `key: value`")
    return data


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    dotted = {
        name[len(ENV_PREFIX) :].lower().replace("__", "."): _environment_value(name, value)
        for name, value in environ.items()
        if name.startswith(ENV_PREFIX) and name not in _RESERVED_ENV
    }
    return _nested(dotted)


def _environment_value(name: str, value: str) -> Any:
    """Lists, mappings and null are read as YAML; all else is a string for pydantic to convert."""
    if not value.startswith(("[", "{")) and value not in {"null", ""}:
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"environment variable {name}={value!r} is not valid YAML") from error


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into nested dicts and drop unset (None) dotted ones."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if value is None:
            continue
        *sections, last = key.split(".")
        target = result
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigError(f"`{section}` must be a section of settings, got {target!r}")
        if isinstance(value, Mapping) and isinstance(target.get(last), dict):
            target[last].update(value)
        else:
            target[last] = dict(value) if isinstance(value, Mapping) else value
    return result


def _merge(into: dict[str, Any], new: Mapping[str, Any], *, origin: str) -> None:
    for key, value in new.items():
        field = Settings.model_fields.get(str(key))
        if field is None:
            raise ConfigError(_unknown(str(key), Settings, origin))
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            into[key] = value
            continue
        if not isinstance(value, Mapping):
            raise ConfigError(f"`{key}` in {origin} must be a section of settings, got {value!r}")
        for name in value:
            if name not in field.annotation.model_fields:
                raise ConfigError(_unknown(str(name), field.annotation, origin, section=key))
        into[key] = {**into.get(key, {}), **value}


def _unknown(key: str, model: type[BaseModel], origin: str, section: str = "") -> str:
    prefix = f"{section}." if section else ""
    unknown = f"unknown setting `{prefix}{key}` in {origin}"
    near = difflib.get_close_matches(key, model.model_fields, n=1)
    if near:
        return f"{unknown}; did you mean `{prefix}{near[0]}`?"
    return f"{unknown}; there are: {', '.join(prefix + name for name in model.model_fields)}"


def explain(error: ValidationError) -> str:
    """The first problem pydantic found, in one line that names the setting."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"setting `{where}`: {first['msg']} (got {first['input']!r})"
