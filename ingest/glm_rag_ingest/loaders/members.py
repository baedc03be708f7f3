"""Files inside files: read one by one, within limits that no bomb gets around."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import PurePosixPath
from urllib.parse import quote

from glm_rag.errors import DocumentError, GlmRagError, MissingDependencyError
from glm_rag.types import ExtractedDocument, IngestFailure
from glm_rag_ingest.loaders.base import Extracted, Member, failure

# A mail with a zip with a mail with a pdf; nobody files documents deeper on purpose.
MOST_LEVELS = 3
MOST_MEMBERS = 10_000
# All members of one file, nested ones included. Deflate reaches 1,032:1 and real documents stay
# under 20:1 (logs and spreadsheets reach 50:1), so 200:1 is a bomb, unless it is a small one.
MOST_BYTES = 2 << 30
MOST_RATIO = 200
FREE_BYTES = 100_000_000
# The texts of all members are in memory until the file is stored; Python takes up to 4 bytes each.
MOST_CHARACTERS = 1 << 28

_JUNK_FOLDERS = frozenset({"__macosx", "__pycache__", "node_modules", "lost+found"})
_JUNK_FILES = frozenset({"thumbs.db", "desktop.ini"})
_JUNK_PREFIXES = (".", "~$", "._")
_DRIVE = re.compile(r"[A-Za-z]:")

Parse = Callable[[str, bytes], tuple[Extracted, ExtractedDocument]]


class MemberReader:
    """Reads the members of one file, and theirs, into documents and failures.

    Args:
        file: the file's own document; members take its source and its time.
        parse: reads the bytes of a name; raises `DocumentError` where it cannot.
    """

    def __init__(self, file: ExtractedDocument, parse: Parse) -> None:
        self._file = file
        self._parse = parse
        self._sources: set[str] = set()
        self._num_members = self._num_bytes = self._num_characters = 0
        self._most_bytes = min(MOST_BYTES, max(FREE_BYTES, MOST_RATIO * file.size))
        self._is_full = False
        self.documents: list[ExtractedDocument] = []
        self.failures: list[IngestFailure] = []
        self.reasons: Counter[str] = Counter()

    @property
    def found_any(self) -> bool:
        """Whether there was a member at all, readable or not."""
        return self._num_members > 0 or bool(self.failures)

    def read(self, members: Iterable[Member], inside: str = "", level: int = 1) -> None:
        """Read members of the file, or of its member `inside`, down to `MOST_LEVELS`."""
        try:
            for member in members:
                if is_junk(member.name):
                    continue
                self._read_one(member, f"{inside}{member.name}", level)
                if self._is_full or level > MOST_LEVELS:
                    return
        except GlmRagError:
            raise
        except MemoryError:
            self._fail(inside, failure("crash", "reading it needs more memory than allowed"))
        # A parser may raise anything on a damaged file; what was read before that is good.
        except Exception as error:  # noqa: BLE001
            detail = f"the rest of the file is damaged ({type(error).__name__}: {error})"
            self._fail(inside, failure("corrupt", detail[:300]))

    def all_failed(self) -> DocumentError:
        """Why the whole file is a failure: it has no text, and none of its members has."""
        if not self.failures:
            return failure("empty", "no files in it, or only hidden ones")
        reason = self.reasons.most_common(1)[0][0]
        first = self.failures[0]
        detail = f"none of the {len(self.failures)} files in it can be read; the first: "
        permanent = all(failed.permanent for failed in self.failures)
        return failure(reason, detail + first.error, permanent=permanent)

    def _read_one(self, member: Member, path: str, level: int) -> None:
        try:
            self._check(member.name, level)
            data = member.read()
            self._num_bytes += len(data)
            self._check_sizes()
            extracted, document = self._parse(PurePosixPath(member.name).name, data)
        except DocumentError as error:
            self._fail(path, error)
            return
        except MissingDependencyError as error:
            self._fail(path, failure("unsupported", str(error), permanent=False))
            return
        if document.text.strip():
            source = self._source(path)
            document = replace(
                document, source=source, mtime=self._file.mtime, container=self._file.source
            )
            self.documents.append(document)
            self._num_characters += len(document.text)
        self.read(extracted.members, f"{path}/", level + 1)

    def _check(self, name: str, level: int) -> None:
        """Refuse a member before anything is read; the first beyond a limit speaks for the rest."""
        self._num_members += 1
        if level > MOST_LEVELS:
            raise failure("unsupported", f"more than {MOST_LEVELS} levels inside; unpack it")
        if self._num_members > MOST_MEMBERS:
            raise self._full(f"more than {MOST_MEMBERS:,} files in one")
        if problem := unsafe_name(name):
            raise failure("unsupported", f"refused: {problem}")

    def _check_sizes(self) -> None:
        if self._num_bytes > self._most_bytes:
            raise self._full(f"unpacks to more than {self._most_bytes:,} bytes")
        if self._num_characters > MOST_CHARACTERS:
            raise self._full(f"holds more than {MOST_CHARACTERS:,} characters")

    def _full(self, limit: str) -> DocumentError:
        self._is_full = True
        return failure("unsupported", f"{limit}; this file and the rest are left out; split it")

    def _fail(self, path: str, error: DocumentError) -> None:
        source = self._source(path.rstrip("/"))
        self.failures.append(IngestFailure(source, "load", str(error), error.permanent))
        self.reasons[error.reason] += 1

    def _source(self, path: str) -> str:
        """The member's URI; a second one of the same name gets a number."""
        source = f"{self._file.source}#{quote(path.encode('utf-8', 'replace'))}"
        number, unique = 1, source
        while unique in self._sources:
            number += 1
            unique = f"{source}~{number}"
        self._sources.add(unique)
        return unique


def unsafe_name(name: str) -> str:
    """What is wrong with a member's name; empty for a relative path that stays inside."""
    if not name.strip() or "\0" in name:
        return "an empty name" if "\0" not in name else "a NUL in its name"
    if "\\" in name:
        return "a backslash in its name"
    if name.startswith("/") or _DRIVE.match(name):
        return "an absolute path"
    return "its path leads out of the archive" if ".." in name.split("/") else ""


def is_junk(name: str) -> bool:
    """Whether a path is hidden, a lock file, or of a tool's folder, as in folders on disk."""
    *folders, last = [part.lower() for part in name.split("/")]
    if any(part in _JUNK_FOLDERS or (part[:1] == "." and part.strip(".")) for part in folders):
        return True
    return last in _JUNK_FILES or (last.startswith(_JUNK_PREFIXES) and bool(last.strip(".")))
