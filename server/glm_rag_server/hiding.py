"""Messages as clients may read them: without where things lie on this machine and behind it.

Errors are written for the operator, whom an address or a folder helps. A client learns the name
of the setting that holds it instead; the log has what was left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from glm_rag.settings import Settings

_SECRETS = frozenset({"llm.api_key", "store.token", "ui.token"})
# No places: origins that clients know, their own; words for the model and for the search.
_OPEN = frozenset({"server.allowed_origins", "generation.stop", "retrieval.filter"})
# What many write where no key is needed, as `none` and `EMPTY`.
_WORD = re.compile(r"[A-Za-z]{1,7}")
_HOST_AND_PORT = re.compile(r"[\w.-]+:\d{2,5}")
# What no setting names: an address in the words of another server, a folder of a library. The
# `file:` URIs of documents are what clients ask for them by; this machine is in every example.
_HERE = r"(?!(?:[a-z]+://)?(?:127\.0\.0\.1|localhost)\b)"
_ADDRESS = re.compile(
    rf"\b(?!file:){_HERE}[a-z][a-z0-9+.-]{{0,20}}://[^\s'\"()<>,;]+"
    rf"|\b{_HERE}\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?::\d+)?\b",
    re.I,
)
_FOLDER = re.compile(r"(?<![\w/:.~)])~?(?:/[\w.@+-]+){2,}/?")


class Hiding:
    """Takes places and secrets of these settings out of messages."""

    def __init__(self, settings: Settings) -> None:
        shown: dict[str, str] = {}
        for name, value in _values("", settings.model_dump()):
            for spelling in _spellings(name, value):
                shown.setdefault(spelling, "(data folder)" if name == "home" else f"({name})")
        self._shown = shown
        self._secret = {f"({name})" for name in _SECRETS}
        # The longest first: an address holds its host.
        longest = sorted(shown, key=len, reverse=True)
        self._known = re.compile("|".join(map(_pattern, longest)) or r"(?!)")

    def __call__(self, text: str) -> str:
        """The message without them."""
        text = self._known.sub(lambda found: self._shown[found.group()], text)
        return _FOLDER.sub("(folder)", _ADDRESS.sub("(address)", text))

    def places_in(self, text: str) -> list[str]:
        """What a client does not get to see of a message, for the log; no secrets."""
        found = self._known.findall(text)
        rest = self._known.sub(")", text)
        found = [one for one in found if self._shown[one] not in self._secret]
        return list(dict.fromkeys([*found, *_ADDRESS.findall(rest), *_FOLDER.findall(rest)]))


def _pattern(spelling: str) -> str:
    """Where a spelling is meant: not inside of a longer name, as the folder /srv of /srv2, nor in
    the URI of a document. Dots end sentences, too."""
    if spelling.isidentifier():  # a folder `data` beside us: the word is another thing
        return rf"(?<![\w/-]){spelling}(?=/)"
    return rf"(?<![\w-])(?<!file://){re.escape(spelling)}(?![\w-])"


def _values(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """The texts and folders among settings, by their names."""
    if name in _OPEN:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _values(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _values(name, inner)
    elif isinstance(value, str | Path) and str(value):
        yield name, str(value)


def _spellings(name: str, value: str) -> Iterator[str]:
    """How messages write a setting's value; nothing for a value that is no place."""
    if name in _SECRETS:
        if not _WORD.fullmatch(value):
            yield value
        return
    is_folder = name == "home" or Path(value).expanduser().is_absolute()
    if is_folder or (name == "store.uri" and "://" not in value):
        path = Path(value).expanduser()
        # The root is in every address.
        yield from {value, str(path), str(path.resolve())} - {path.anchor}
        return
    bare = _HOST_AND_PORT.fullmatch(value) is not None
    if not bare and "://" not in value:
        return
    try:
        parts = urlsplit(f"//{value}" if bare else value)
    except ValueError:  # whoever asks there says what is wrong with it
        yield value
        return
    host = parts.hostname or ""
    yield from {value, value.rstrip("/"), parts.netloc.rpartition("@")[2] or value}
    # A host alone may be an ordinary word, or this machine.
    if ("." in host or ":" in host) and host not in ("127.0.0.1", "::1"):
        yield host
