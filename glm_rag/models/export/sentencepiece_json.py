"""ChatGLM2's `tokenizer.model` (sentencepiece BPE with byte fallback) as a `tokenizer.json`.

Special and control ids get names between two U+FDD0, a code point that is no character and that
no text has a reason to hold. Published names would be found in texts: "sop" is in "philosophy",
and a "</s>" of a question would end it. So those stay plain text, as in the published tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glm_rag.engine.chatglm2_tokenizer import ChatGLM2Tokenizer
from glm_rag.errors import CheckpointError, MissingDependencyError

_SPACE_MARK = "\u2581"
MARK = "\ufdd0"
_CONTROL_NAMES = ("unk", "s", "/s")  # ids 0, 1, 2
_SPECIAL_NAMES = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")  # ids behind the pieces
# What a converted tokenizer is compared on before it is written.
_PROBES = (
    "",
    " ",
    "你好，世界！北京的温度是 -3.5℃。",
    "The quick brown fox's philosophy: 1,234 + 5 = 1,239.",
    "def f(x):\n    if x:\n\t\treturn  x\n",
    "[gMASK]sop</s><unk><0x0A>[Round 1]\n\n问：\n\n答：",
    "🙂👩‍👩‍👧‍👦 naïve ﬁﬀ ＡＢＣ１２３ \u00a0\u3000\u200b ᚠᛇᚻ \x00\x07 \ufffd",
    *(" " * n for n in range(2, 40)),
    "a" * 37 + "." * 41 + "-" * 23 + "哈" * 29,
)


def marked(name: str) -> str:
    """The name of a special token in the exported vocabulary."""
    return f"{MARK}{name}{MARK}"


def special_tokens(num_pieces: int) -> dict[str, int]:
    """Special tokens by their exported name; those of prompts stand behind the pieces."""
    specials = {marked(name): token_id for token_id, name in enumerate(_CONTROL_NAMES)}
    return specials | {marked(name): num_pieces + i for i, name in enumerate(_SPECIAL_NAMES)}


EOS_TOKEN, UNK_TOKEN, BOS_TOKEN = marked("/s"), marked("unk"), marked("s")
PROMPT_PREFIX = marked("[gMASK]") + marked("sop")


def chatglm2_tokenizer_json(path: Path) -> str:
    """The contents of `tokenizer.json` for a `tokenizer.model`.

    Raises:
        CheckpointError: it is absent or damaged, or of a kind whose ids would not be the same.
        MissingDependencyError: sentencepiece or tokenizers is not installed.
    """
    try:
        from sentencepiece import SentencePieceProcessor
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingDependencyError.for_extra(error.name or "tokenizers", "engine") from error
    original = ChatGLM2Tokenizer.from_file(path)
    processor = SentencePieceProcessor(model_proto=path.read_bytes())
    definition = json.dumps(_definition(processor), ensure_ascii=False)
    converted = Tokenizer.from_str(definition)
    for probe in _PROBES:
        if converted.encode(probe, add_special_tokens=False).ids != original.encode(probe):
            raise CheckpointError(
                f"{path} is no tokenizer of ChatGLM2's kind: the exported one would give other ids "
                f"for {probe[:20]!r}"
            )
    return definition


def _definition(processor: Any) -> dict[str, Any]:
    vocabulary, specials = _vocabulary(processor)
    prefix = [marked("[gMASK]"), marked("sop")]
    leading = [{"SpecialToken": {"id": token, "type_id": 0}} for token in prefix]
    texts = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    closing = {"SpecialToken": {"id": EOS_TOKEN, "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added_token(token, token_id)
            for token, token_id in sorted(specials.items(), key=lambda item: item[1])
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": _SPACE_MARK},
                {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE_MARK},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [*leading, texts[0]],
            "pair": [*leading, *texts, closing],
            "special_tokens": {
                token: {"id": token, "ids": [specials[token]], "tokens": [token]}
                for token in (*prefix, EOS_TOKEN)
            },
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE_MARK}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": UNK_TOKEN,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [list(pair) for pair in _merges(processor)],
        },
    }


def _vocabulary(processor: Any) -> tuple[dict[str, int], dict[str, int]]:
    """All tokens by id, and the special ones among them."""
    first = processor.get_piece_size()
    specials = special_tokens(first)
    pieces = {processor.id_to_piece(i): i for i in range(len(_CONTROL_NAMES), first)}
    return dict(sorted({**pieces, **specials}.items(), key=lambda item: item[1])), specials


def _added_token(content: str, token_id: int) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token_id, "content": content, **plain, "special": True}


def _merges(processor: Any) -> Iterator[tuple[str, str]]:
    """Pairs of pieces that join to a piece, in the order in which sentencepiece would join them.

    It joins what gives the piece of the best score; byte pieces take no part.
    """
    scores = {
        processor.id_to_piece(i): processor.get_score(i)
        for i in range(len(_CONTROL_NAMES), processor.get_piece_size())
        if not processor.is_byte(i)
    }
    for piece in sorted(scores, key=lambda text: -scores[text]):
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in scores and right in scores:
                yield left, right
