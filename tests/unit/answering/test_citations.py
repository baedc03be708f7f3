"""Laws of citations: what is quoted stands in the source, and what disagrees is not cited."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document

from glm_rag.citations import align
from glm_rag.text import sentence_spans
from glm_rag.types import Passage

OFFSET = 1000
ENGLISH = (
    "Parental leave\nEach employee may take 26 weeks of parental leave, of which 20 weeks are "
    "fully paid. Requests go to the people team at least eight weeks before the start. "
    "Unused leave may not be carried over. Part-time employees receive the same number of weeks."
)
CHINESE = (
    "育儿假为二十六周，其中二十周全薪。申请须至少提前八周提交给人事部。兼职员工享有同样的周数。"
    "未用完的假期不得结转。"
)
QUESTION = "How long is parental leave?"


def passage(text: str, index: int = 1, **metadata) -> Passage:
    metadata = {"source": "file:///h.md", "title": "Handbook", "start": OFFSET, **metadata}
    document = Document(id=f"chunk{index}", page_content=text, metadata=metadata)
    return Passage(index, document, text, 0)


def quotes(answer: str, *texts: str, question: str = "") -> list[tuple[str, str]]:
    passages = [passage(text, index) for index, text in enumerate(texts, start=1)]
    return [(c.support, c.quote) for c in align(answer, passages, question=question)]


@pytest.mark.parametrize(
    ("answer", "quote"),
    [
        ("26 weeks.", "Each employee may take 26 weeks of parental leave, of which 20 weeks"),
        ("The answer to this question is: 26 weeks", "Each employee may take 26 weeks"),
        ("Each employee may take 26 weeks of parental leave.", "Each employee may take 26"),
        ("each Employee may take ２６ weeks of\nparental leave.", "Each employee may take 26"),
        ("- Part-time employees receive the same number of weeks.", "Part-time employees"),
    ],
)
def test_words_of_the_source_are_cited_verbatim(answer, quote):
    ((support, quoted),) = quotes(answer, ENGLISH, question=QUESTION)
    assert support == "verbatim"
    assert quoted.startswith(quote)


@pytest.mark.parametrize(
    ("answer", "quote"),
    [
        ("Requests must reach the people team eight weeks before the start.", "Requests go"),
        ("Parental leave is twenty-six weeks for each employee.", "Each employee may take"),
    ],
)
def test_other_words_for_the_same_are_cited_as_paraphrase(answer, quote):
    ((support, quoted),) = quotes(answer, ENGLISH, question=QUESTION)
    assert support == "paraphrase"
    assert quoted.startswith(quote)


@pytest.mark.parametrize(
    ("answer", "quote"),
    [
        ("育儿假是26周，其中二十周全薪。", "育儿假为二十六周，其中二十周全薪。"),
        ("须提前八周向人事部提交申请。", "申请须至少提前八周提交给人事部。"),
        ("兼职员工享有同样的周数", "兼职员工享有同样的周数。"),
    ],
)
def test_chinese_sentences_are_cited(answer, quote):
    assert [quoted for _, quoted in quotes(answer, ENGLISH, CHINESE)] == [quote]


@pytest.mark.parametrize(
    "answer",
    [
        "Each employee may take 16 weeks of parental leave, of which 20 weeks are fully paid.",
        "Each employee may take 26 days of parental leave.",
        "16 weeks.",
        "育儿假为十六周，其中二十周全薪。",
        "育儿假为二十六天，其中二十周全薪。",
    ],
)
def test_numbers_that_disagree_are_never_cited(answer):
    assert quotes(answer, ENGLISH, CHINESE, question=QUESTION) == []


@pytest.mark.parametrize(
    "answer",
    ["Unused leave may be carried over to the next year.", "未用完的假期可以结转。"],
)
def test_the_opposite_is_not_cited(answer):
    assert quotes(answer, ENGLISH, CHINESE) == []


@pytest.mark.parametrize(
    "answer",
    [
        "Lunch is served in the canteen at noon.",
        "Yes.",
        "",
        "食堂中午供应午餐。",
        "Do part-time employees receive the same number of weeks?",
        "兼职员工享有同样的周数？",
        "Employees of Globex receive the same number of weeks.",
    ],
)
def test_what_the_source_does_not_say_is_not_cited(answer):
    assert quotes(answer, ENGLISH, CHINESE) == []


def test_a_short_answer_needs_a_source_that_is_about_the_question():
    other = "Notebooks are replaced after 26 weeks."
    assert quotes("26 weeks.", other, question=QUESTION) == []
    ((_, quoted),) = quotes("26 weeks.", other, ENGLISH, question=QUESTION)
    assert quoted.startswith("Each employee")


@pytest.mark.parametrize("question", ["", QUESTION, "And for part-time employees?", "那兼职呢？"])
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("It applies to each parent, also after an adoption.", "Leave. {} See below."),
        ("补办门禁卡收费50元。", "请拨打保安电话8601。{}"),
    ],
)
def test_a_sentence_of_the_source_is_cited_whatever_was_asked(answer, text, question):
    assert quotes(answer, text.format(answer), question=question) == [("verbatim", answer)]


def test_an_answer_that_only_repeats_the_question_is_not_cited():
    question = "What is paid for the first 20 weeks?"
    assert quotes("The answer is: 20 weeks.", ENGLISH, question=question) == []


def test_marks_of_the_model_are_hints_and_never_trusted():
    same = "The canteen opens at eight every morning."
    found = align(
        "The canteen opens at eight every morning [2].", [passage(same), passage(same, 2)]
    )
    assert [c.index for c in found] == [2]
    wrong = align(
        "The canteen opens at eight every morning [2].", [passage(same), passage(CHINESE, 2)]
    )
    assert [c.index for c in wrong] == [1]
    assert align("The moon is made of green cheese [1].", [passage(same)]) == ()


def test_each_sentence_of_the_answer_has_its_own_span():
    answer = "Parental leave is 26 weeks for each employee. Sushi is free. 20 weeks are fully paid."
    found = align(answer, [passage(ENGLISH)])
    assert [answer[c.answer_start : c.answer_end] for c in found] == [
        "Parental leave is 26 weeks for each employee.",
        "20 weeks are fully paid.",
    ]


def test_a_quote_in_a_merged_passage_names_the_chunk_it_stands_in():
    cut = OFFSET + ENGLISH.index("Requests")
    parts = [
        {"id": "first", "start": OFFSET, "end": cut, "page": 1},
        {"id": "second", "start": cut, "end": OFFSET + len(ENGLISH), "page": 2},
    ]
    merged = passage(ENGLISH, page=1, parts=parts)
    (found,) = align("Part-time employees receive the same number of weeks.", [merged])
    assert (found.chunk_id, found.page) == ("second", 2)


def test_a_truncated_passage_is_cited_only_where_the_model_read_it():
    whole = passage(ENGLISH)
    read = Passage(1, whole.document, ENGLISH[: ENGLISH.index("Unused")], 0, truncated=True)
    assert align("Part-time employees receive the same number of weeks.", [read]) == ()


def test_a_heading_lends_its_words_but_is_not_quoted():
    text = "## Parental leave\n\nIt must be taken before the second birthday."
    answer = "Parental leave must be taken before the second birthday."
    assert [quote for _, quote in quotes(answer, text)] == [
        "It must be taken before the second birthday."
    ]
    assert quotes("Parental leave.", text) == []


def test_a_long_table_is_cited_by_its_row():
    rows = "\n".join(f"Room {n} seats {n * 3} people and has a projector" for n in range(1, 40))
    ((_, quoted),) = quotes("Room 7 seats 21 people.", rows)
    assert quoted == "Room 7 seats 21 people and has a projector"


@given(
    st.lists(st.sampled_from([*ENGLISH.split(), *CHINESE.split("，"), "[1]", "\n"]), max_size=30),
    st.integers(0, 10_000),
)
def test_every_quote_is_the_stored_text_at_its_offsets(words, offset):
    answer = " ".join(words)
    for found in align(answer, [passage(ENGLISH, 1, start=offset), passage(CHINESE, 2, start=0)]):
        text, shift = ((ENGLISH, offset), (CHINESE, 0))[found.index - 1]
        assert found.quote == text[found.start - shift : found.end - shift] != ""
        assert 0 <= found.answer_start < found.answer_end <= len(answer)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_true_sentences_find_their_source_and_false_ones_find_none(test_data, language):
    """On XQuAD: a paragraph's sentence against its own paragraph and against another article's."""
    (file,) = (test_data / "xquad").glob(f"*{language}*.json")
    articles = json.loads(file.read_text(encoding="utf-8"))["data"]
    contexts = [[p["context"] for p in article["paragraphs"]] for article in articles]
    own = foreign = total = 0
    for article, other in zip(contexts, contexts[1:] + contexts[:1], strict=True):
        start, end = sentence_spans(article[0])[0]
        sentence = article[0][start:end]
        total += 1
        found = align(sentence, [passage(text, i) for i, text in enumerate(article, 1)])
        own += [c.quote for c in found] == [sentence]
        foreign += bool(align(sentence, [passage(text, i) for i, text in enumerate(other, 1)]))
    assert own >= 0.95 * total
    assert foreign == 0


def test_the_numbers_of_a_list_are_no_claims():
    text = "To report a lost laptop call extension 4357. You have 3. 5 days later it is locked."
    numbered = "3.\n\n5.\n\n3."
    assert quotes(numbered, text, question="How do I report a lost laptop?") == []


def test_a_lone_number_is_an_answer():
    assert quotes("26.", ENGLISH, question=QUESTION)
