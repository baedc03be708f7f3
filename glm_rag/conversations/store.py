"""Conversations by profile: one profile never reads, changes or deletes what is another's."""

from __future__ import annotations

import builtins
import hashlib
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from glm_rag.conversations.answers import dump
from glm_rag.conversations.database import ConversationFile
from glm_rag.conversations.owner import me
from glm_rag.conversations.rows import OWN, TURN, feedback_of, messages_of, next_position, turn_of
from glm_rag.errors import ConfigError
from glm_rag.text import fold
from glm_rag.types import Conversation, ConversationInfo, SavedTurn, Vote

FILE_NAME = "conversations.sqlite"
_MAX_TITLE = 80
_MAX_GIVEN_TITLE = 200
# A page that starts a conversation before the first question leaves it behind when it is closed.
_EMPTY_SECONDS = 24 * 3600.0


class ConversationStore:
    """Conversations, feedback and preferences in one SQLite file; made if it is missing.

    Any thread may use it, and any number of processes. What is asked for under another profile,
    or was deleted meanwhile, is not there: reading gives nothing, changing does nothing.

    Args:
        path: of the file, by convention `<data folder>/conversations.sqlite`.

    Raises:
        KnowledgeBaseError: (every method) no permission, damaged file, written by a newer
            glm-rag, disk full, locked for too long.
    """

    def __init__(self, path: Path) -> None:
        self._file = ConversationFile(path)

    @property
    def path(self) -> Path:
        """Of the file."""
        return self._file.path

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # ------------------------------------------------------------ conversations

    def start(self, profile: str, kb: str) -> Conversation:
        """A new conversation; it is listed once it holds a question."""
        now = time.time()
        made = Conversation(secrets.token_hex(8), kb, "", now, now)
        with self._file.write() as connection:
            connection.execute(
                "DELETE FROM conversations WHERE profile = ? AND created_at < ? AND NOT EXISTS "
                "(SELECT 1 FROM turns WHERE conversation_id = conversations.id)",
                (profile, now - _EMPTY_SECONDS),
            )
            connection.execute(
                "INSERT INTO conversations (id, profile, kb, created_at, updated_at) "
                "VALUES (?, ?, ?, ?, ?)",
                (made.id, profile, _clean(kb), now, now),
            )
        return made

    def list(
        self, profile: str, *, kb: str | None = None, search: str = "", limit: int = 200
    ) -> builtins.list[ConversationInfo]:
        """Conversations with at least one question, the one asked in last first.

        Args:
            kb: only those of this knowledge base.
            search: words that each stand in the title, or in some question or answer. Case,
                width and Chinese variants do not matter.
        """
        conditions, parameters = ["c.profile = ?"], [profile]
        if kb is not None:
            conditions.append("c.kb = ?")
            parameters.append(kb)
        for word in fold(_clean(search)).split():
            conditions.append(
                "(instr(c.folded, ?) OR EXISTS (SELECT 1 FROM turns AS t "
                "WHERE t.conversation_id = c.id AND instr(t.folded, ?)))"
            )
            parameters += [word, word]
        rows = self._file.rows(
            "SELECT c.id, c.kb, c.title, c.created_at, c.updated_at, count(*) "
            "FROM conversations AS c JOIN turns ON turns.conversation_id = c.id "
            f"WHERE {' AND '.join(conditions)} GROUP BY c.id "
            "ORDER BY c.updated_at DESC, c.id LIMIT ?",
            (*parameters, limit),
        )
        return [ConversationInfo(*row) for row in rows]

    def get(self, profile: str, conversation_id: str) -> Conversation | None:
        """A conversation with its turns; None if the profile has none of that id."""
        with self._file.read() as connection:
            found = connection.execute(
                "SELECT id, kb, title, created_at, updated_at FROM conversations "
                "WHERE id = ? AND profile = ?",
                (conversation_id, profile),
            ).fetchone()
            if found is None:
                return None
            messages = connection.execute(
                f"SELECT digest, message FROM messages WHERE conversation_id = {OWN}",
                (conversation_id, profile),
            ).fetchall()
            turns = connection.execute(
                f"SELECT {TURN} FROM turns WHERE conversation_id = {OWN} ORDER BY position",
                (conversation_id, profile),
            ).fetchall()
        said = messages_of(messages)
        known_id, kb, title, created_at, updated_at = found
        made = tuple(turn_of(row, said) for row in turns)
        return Conversation(known_id, kb, title, created_at, updated_at, made)

    def rename(self, profile: str, conversation_id: str, title: str) -> None:
        """Give a conversation a title that stays, whatever is asked.

        Raises:
            ConfigError: the title is empty.
        """
        title = _one_line(title, _MAX_GIVEN_TITLE)
        if not title:
            raise ConfigError("the title is empty: type one")
        with self._file.write() as connection:
            connection.execute(
                "UPDATE conversations SET title = ?, folded = ?, is_renamed = 1 "
                "WHERE id = ? AND profile = ?",
                (title, fold(title), conversation_id, profile),
            )

    def delete(self, profile: str, conversation_id: str) -> None:
        """Delete a conversation with everything in it."""
        with self._file.write() as connection:
            connection.execute(
                "DELETE FROM conversations WHERE id = ? AND profile = ?",
                (conversation_id, profile),
            )

    def rename_kb(self, old: str, new: str) -> None:
        """Keep conversations, of all profiles, with a knowledge base that got another name.

        Also what profiles remember of it: that it was chosen (`kb`), its `thresholds`.
        """
        new = _clean(new)
        with self._file.write() as connection:
            connection.execute("UPDATE conversations SET kb = ? WHERE kb = ?", (new, old))
            kept = connection.execute(
                "SELECT profile, key, value FROM preferences WHERE key IN ('kb', 'thresholds')"
            ).fetchall()
            changed = []
            for profile, key, text in kept:
                value = json.loads(text)
                if key == "kb" and value == old:
                    changed.append((dump(new), profile, key))
                elif key == "thresholds" and old in value:
                    value[new] = value.pop(old)
                    changed.append((dump(value), profile, key))
            connection.executemany(
                "UPDATE preferences SET value = ? WHERE profile = ? AND key = ?", changed
            )

    # ------------------------------------------------------------ turns

    def add_turn(
        self, profile: str, conversation_id: str, question: str, *, unread: bool = False
    ) -> SavedTurn:
        """Append a question whose answer this process is about to make.

        The first question is the title, unless somebody chose one.

        Raises:
            KnowledgeBaseError: the profile has no such conversation, or it was deleted.
        """
        now, turn_id, asked = time.time(), secrets.token_hex(8), _clean(question)
        with self._file.write() as connection:
            position = next_position(connection, profile, conversation_id)
            turn = SavedTurn(turn_id, conversation_id, position, asked, unread=unread, asked_at=now)
            connection.execute(
                "INSERT INTO turns (id, conversation_id, position, question, folded, status, "
                "owner, unread, asked_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (turn.id, conversation_id, position, turn.question, fold(turn.question),
                 turn.status, me(), unread, now),
            )  # fmt: skip
            connection.execute(
                "UPDATE conversations SET updated_at = ? WHERE id = ? AND profile = ?",
                (now, conversation_id, profile),
            )
            if position == 0:
                title = _one_line(question, _MAX_TITLE)
                connection.execute(
                    "UPDATE conversations SET title = ?, folded = ? "
                    "WHERE id = ? AND profile = ? AND NOT is_renamed",
                    (title, fold(title), conversation_id, profile),
                )
        return turn

    def save_turn(self, profile: str, turn: SavedTurn) -> None:
        """Keep text, answer, status and error of a turn; cheap enough to call while it streams.

        Raises:
            ConfigError: metadata of a passage holds something that has no JSON form.
        """
        messages = [dump(message) for message in turn.answer.messages] if turn.answer else []
        digests = [hashlib.sha256(message.encode()).hexdigest()[:32] for message in messages]
        answer = None if turn.answer is None else dump(replace(turn.answer, messages=()))
        text = _clean(turn.text)
        with self._file.write() as connection:
            changed = connection.execute(
                "UPDATE turns SET text = ?, folded = ?, answer = ?, messages = ?, status = ?, "
                f"owner = ?, error = ? WHERE id = ? AND conversation_id = {OWN}",
                (text, fold(f"{turn.question}\n{text}"), answer, json.dumps(digests), turn.status,
                 me(), _clean(turn.error), turn.id, turn.conversation_id, profile),
            ).rowcount  # fmt: skip
            if changed:
                connection.executemany(
                    "INSERT OR IGNORE INTO messages VALUES (?, ?, ?)",
                    zip([turn.conversation_id] * len(digests), digests, messages, strict=True),
                )

    def cut(self, profile: str, conversation_id: str, position: int) -> None:
        """Remove the turns from `position` on, with what only they hold."""
        with self._file.write() as connection:
            connection.execute(
                f"DELETE FROM turns WHERE conversation_id = {OWN} AND position >= ?",
                (conversation_id, profile, position),
            )
            connection.execute(
                f"DELETE FROM messages WHERE conversation_id = {OWN} AND digest NOT IN "
                "(SELECT value FROM turns, json_each(turns.messages) WHERE conversation_id = ?)",
                (conversation_id, profile, conversation_id),
            )

    # ------------------------------------------------------------ feedback and preferences

    def set_feedback(self, profile: str, turn_id: str, vote: Vote | None, words: str = "") -> None:
        """Keep what the reader thinks of an answer; no vote takes it back, words included."""
        if vote not in {"up", "down", None}:
            raise ConfigError(f"a vote is up, down or None, not {vote!r}")
        with self._file.write() as connection:
            connection.execute(
                "UPDATE turns SET vote = ?, words = ? WHERE id = ? AND conversation_id IN "
                "(SELECT id FROM conversations WHERE profile = ?)",
                (vote, _clean(words.strip()) if vote else "", turn_id, profile),
            )

    def feedback(self, *, kb: str | None = None) -> Iterator[dict[str, Any]]:
        """Every answer with a vote, of all profiles, oldest first, ready for JSON.

        Yields:
            `question`, `answer` (its text), `citations`, `vote`, `words`, `kb`, `asked_at` (ISO
            8601, UTC). Nothing says whose it is.
        """
        ids = self._file.rows(
            "SELECT t.id FROM turns AS t JOIN conversations AS c ON c.id = t.conversation_id "
            "WHERE t.vote IS NOT NULL AND (?1 IS NULL OR c.kb = ?1) ORDER BY t.asked_at, t.id",
            (kb,),
        )
        # One at a time: the answers may be more than memory holds, and whoever reads may be slow.
        for turn_id in ids:
            for row in self._file.rows(
                "SELECT t.question, t.text, t.answer, t.vote, t.words, c.kb, t.asked_at "
                "FROM turns AS t JOIN conversations AS c ON c.id = t.conversation_id "
                "WHERE t.id = ? AND t.vote IS NOT NULL",
                turn_id,
            ):
                yield feedback_of(*row)

    def preferences(self, profile: str) -> dict[str, Any]:
        """What the profile has set."""
        rows = self._file.rows("SELECT key, value FROM preferences WHERE profile = ?", (profile,))
        return {key: json.loads(value) for key, value in rows}

    def set_preferences(self, profile: str, values: Mapping[str, Any]) -> None:
        """Merge JSON values into the profile's; None removes a key."""
        kept = [(profile, key, dump(value)) for key, value in values.items() if value is not None]
        with self._file.write() as connection:
            connection.executemany(
                "DELETE FROM preferences WHERE profile = ? AND key = ?",
                [(profile, key) for key in values],
            )
            connection.executemany("INSERT INTO preferences VALUES (?, ?, ?)", kept)


def _clean(text: str) -> str:
    """What UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode()


def _one_line(text: str, limit: int) -> str:
    line = " ".join(_clean(text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"
