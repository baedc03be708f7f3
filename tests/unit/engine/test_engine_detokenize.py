"""Streamed pieces always join to the text of all ids, and stop strings end it exactly."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glm_rag.engine.chatglm2_tokenizer import ChatGLM2Tokenizer
from glm_rag.engine.detokenize import AnswerStream, Detokenizer, StopFilter
from tiny_checkpoints import byte_tokenizer

BYTES = byte_tokenizer()
# Spaces, space-marked and bare pieces, halves of characters, line breaks, special ids.
TRICKY = [0, 1, 2, 3, 5, 12, 13, 35, 36, 265, 30910, 2951, 3729, 36474, 54591, 13755, 30932]
TRICKY += [243, 162, 148, 142, 231, 187, 163, 131, 198, 64789, 64790, 64792, 64793, 39701, 55437]


@pytest.fixture(scope="module")
def chatglm2(test_data) -> ChatGLM2Tokenizer:
    return ChatGLM2Tokenizer.from_file(test_data / "chatglm2" / "tokenizer.model")


def stream(tokenizer, ids, stop=()) -> tuple[list[str], list[int], bool]:
    answer = AnswerStream(tokenizer.decode, stop)
    texts, kept = [], []
    for token_id in ids:
        text, done = answer.push(token_id)
        texts.append(text)
        kept += done
        if answer.stopped:
            break
    text, done = answer.finish()
    return [*texts, text], [*kept, *done], answer.stopped


@settings(max_examples=400)
@given(st.lists(st.one_of(st.sampled_from(TRICKY), st.integers(0, 64793)), max_size=30))
@example([64793, 36474, 64793, 13755])
@example([30910, 30910, 13755, 30910, 13])
@example([35, 13755, 35, 13755])
def test_chatglm2_pieces_join_to_the_decoded_whole(chatglm2, ids):
    texts, kept, _ = stream(chatglm2, ids)
    assert "".join(texts) == chatglm2.decode(ids)
    assert kept == ids


@settings(max_examples=400)
@given(st.lists(st.integers(0, 258), max_size=30))
def test_byte_level_pieces_join_to_the_decoded_whole(ids):
    texts, kept, _ = stream(BYTES, ids)
    assert "".join(texts) == BYTES.decode(ids)
    assert kept == ids


@given(st.text())
def test_no_piece_holds_half_a_character(text):
    texts, _, _ = stream(BYTES, BYTES.encode(text))
    whole = "".join(texts)
    assert whole == text
    assert all("\ufffd" not in piece or "\ufffd" in text for piece in texts)


def test_characters_come_out_as_soon_as_they_are_complete(chatglm2):
    texts, _, _ = stream(chatglm2, [30910, 243, 162, 148, 142, 36474, 13755])
    assert texts == ["", "", "", "", "👋", " 你", " Hello", ""]


def test_only_a_short_window_is_decoded_again():
    seen = []

    def decode(ids):
        seen.append(len(ids))
        return BYTES.decode(ids)

    detokenizer = Detokenizer(decode)
    for token_id in BYTES.encode("plain text " * 50):
        detokenizer.push(token_id)
    assert max(seen) <= 2


def expected_stop(text: str, stops) -> str:
    """Text before the stop string that ends first, of those the one that starts first."""
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)]
    return text


@settings(max_examples=300)
@given(
    st.text("ab你", max_size=30),
    st.lists(st.text("ab你", min_size=1, max_size=4), max_size=3),
)
@example("aab", ["ab"])
@example("aba", ["b", "aba"])
@example("abab你", ["ab你", "bb"])
def test_text_ends_before_the_first_stop_string(text, stops):
    texts, kept, stopped = stream(BYTES, BYTES.encode(text), stops)
    assert "".join(texts) == expected_stop(text, stops)
    assert stopped == any(stop in text for stop in stops)
    assert BYTES.decode(kept) == "".join(texts)


@given(st.text("abc", max_size=20), st.text("abc", min_size=1, max_size=3))
def test_no_start_of_a_stop_string_is_shown_too_early(text, stop):
    texts, _, _ = stream(BYTES, BYTES.encode(text), [stop])
    shown = ""
    for piece in texts[:-1]:
        shown += piece
        assert expected_stop(text, [stop]).startswith(shown)


def test_without_stop_strings_nothing_is_held_back():
    stop_filter = StopFilter(())
    assert stop_filter.push("anything\n") == "anything\n"
    assert stop_filter.finish() == ""
