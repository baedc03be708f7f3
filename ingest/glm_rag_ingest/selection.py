"""Which files of a folder a run is about: patterns as in `.gitignore`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from glm_rag.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Selection:
    """Patterns over a file's path relative to the named folder, with `/`; exclude wins.

    A pattern without a slash holds at any depth, one with a slash from the folder on. `*` and `?`
    stay inside a name, `**` crosses folders, `[a-z]` is one character. A pattern that names a
    folder, with or without a slash behind it, holds for all that is in it.
    """

    include: tuple[re.Pattern[str], ...] = ()
    exclude: tuple[re.Pattern[str], ...] = ()

    @classmethod
    def of(cls, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> Selection:
        """Compile patterns.

        Raises:
            ConfigError: an empty pattern, one that begins with `!`, or a range like `[z-a]`.
        """
        return cls(tuple(map(_compiled, include)), tuple(map(_compiled, exclude)))

    def takes(self, path: str) -> bool:
        """Whether a file is wanted."""
        return not self.refuses(path) and (
            not self.include or any(pattern.match(path) for pattern in self.include)
        )

    def refuses(self, path: str) -> bool:
        """Whether a file, or a folder with all that is in it, is excluded.

        A folder's path ends with `/`.
        """
        return any(pattern.match(path) for pattern in self.exclude)


def _compiled(pattern: str) -> re.Pattern[str]:
    body = pattern.strip().removeprefix("./")
    if not body.strip("/"):
        raise ConfigError(f"{pattern!r} is no pattern: write it like *.md or drafts/")
    if body.startswith("!"):
        raise ConfigError(f"{pattern!r}: negated patterns are not known; use --include instead")
    is_folder = body.endswith("/")
    body = body.rstrip("/")
    anywhere = "" if "/" in body else "(?:.*/)?"
    below = "/.*" if is_folder else "(?:/.*)?"
    expression = f"{anywhere}{_translated(body.lstrip('/'))}{below}\\Z"
    try:
        return re.compile(expression, re.DOTALL)
    except re.error as error:
        raise ConfigError(f"{pattern!r} is no pattern: {error.msg}") from error


_TOKEN = re.compile(
    r"(?P<into>\*\*/)|(?P<all>\*\*)|(?P<part>\*)|(?P<one>\?)|\[(?P<set>[!^]?[^]/]+)\]"
)


def _translated(pattern: str) -> str:
    parts: list[str] = []
    end = 0
    for match in _TOKEN.finditer(pattern):
        parts.append(re.escape(pattern[end : match.start()]))
        parts.append(_expression(match))
        end = match.end()
    return "".join([*parts, re.escape(pattern[end:])])


def _expression(match: re.Match[str]) -> str:
    if match["set"]:
        negated = match["set"][0] in "!^"
        inside = re.sub(r"([\\^\[&~|])", r"\\\1", match["set"][negated:])
        return f"[{'^/' if negated else ''}{inside}]"
    return {"into": "(?:.*/)?", "all": ".*", "part": "[^/]*", "one": "[^/]"}[match.lastgroup or ""]
