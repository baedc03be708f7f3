"""Language, terms and sentences."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_rag.text import (
    chunk_language,
    clean_for_embedding,
    detect_language,
    holds_language,
    query_terms,
    sentence_spans,
    term_spans,
    terms,
)


def sentences(text):
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Parental leave is 26 weeks.", "en"),
        ("育儿假为二十六周。", "zh"),
        ("Python 3.11 的安装说明", "zh"),
        ("A long English page that quotes one word, 你好, and nothing else at all here.", "en"),
        ("", "en"),
        ("12345 !!!", "en"),
    ],
)
def test_language_is_that_of_the_letters(text, language):
    assert detect_language(text) == language


def test_terms_fold_case_and_width_and_cut_chinese_into_bigrams():
    assert terms("The ＡＢＣ Policy’s 育儿假") == ["abc", "policy", "育儿", "儿假"]


def test_a_lone_chinese_character_is_a_term():
    assert terms("a 假 b") == ["假", "b"]


def test_question_words_are_not_search_terms():
    assert query_terms("育儿假有多长？") == ["育儿", "儿假"]
    assert query_terms("What is the parental leave?") == ["parental", "leave"]


def test_query_terms_are_distinct():
    assert query_terms("leave and leave") == ["leave"]


def test_sentences_end_at_chinese_and_english_marks():
    assert sentences("你好。 再见！Fine, 3.14 it is. Next?") == [
        "你好。",
        "再见！",
        "Fine, 3.14 it is.",
        "Next?",
    ]


def test_abbreviations_do_not_end_a_sentence():
    assert sentences("Ask Dr. Lee, e.g. today. Then go.") == [
        "Ask Dr. Lee, e.g. today.",
        "Then go.",
    ]


def test_list_items_and_paragraphs_are_sentences_of_their_own():
    assert sentences("Rules\n\n- one\n- two") == ["Rules", "- one", "- two"]


@given(st.text())
def test_sentences_cover_every_visible_character_once(text):
    spans = sentence_spans(text)
    covered = "".join("".join(text[start:end].split()) for start, end in spans)
    assert covered == "".join(text.split())
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


@given(st.text(st.characters(exclude_categories=[])))
def test_cleaned_text_is_safe_to_embed(text):
    cleaned = clean_for_embedding(text)
    cleaned.encode("utf-8")
    assert "\0" not in cleaned
    assert clean_for_embedding(cleaned) == cleaned


@pytest.mark.timeout(30)
def test_a_long_row_of_dots_takes_linear_time():
    dots = "." * 100_000
    assert sentences(f"a{dots}word. c") == [f"a{dots}word.", "c"]
    assert sentences(f"word{dots} c") == [f"word{dots}", "c"]


@pytest.mark.parametrize(
    ("text", "document", "language"),
    [
        ("The guest network is called Alderbrook. Ask at the reception desk.", "zh", "en"),
        ("访客网络每周一更换密码，请向前台索取。" * 3, "en", "zh"),
        ("Alderbrook-Guest", "zh", "zh"),  # too short to judge
        ("安装 Python 3.11 and the packages that this page names, then run it.", "zh", "zh"),
        ("The Chinese word 你好 means hello, and this line is English for the rest.", "en", "en"),
    ],
)
def test_a_chunk_has_its_documents_language_unless_it_is_plainly_in_the_other(
    text, document, language
):
    assert chunk_language(text, document) == language


@pytest.mark.parametrize(
    ("text", "languages"),
    [
        ("Q: When is the summer party?\nA: On the last Thursday of June.", {"en"}),
        ("育儿假为二十六周。\n每位家长都可以申请，领养也算。", {"zh"}),
        (
            "When is the summer party? It is on the last Thursday.\n年会在每年一月的第二个星期五。",
            {"en", "zh"},
        ),
        ("安装 Python 3.11 and the packages that this page names, 然后运行这个程序。", set()),
        ("The Chinese word 你好 means hello, and this line is English for the rest.", set()),
        ("", set()),
    ],
)
def test_a_passage_holds_the_languages_of_its_lines(text, languages):
    assert {language for language in ("en", "zh") if holds_language(text, language)} == languages


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("網路安全與軟體開發", "网路安全与软体开发"),
        ("臺灣", "台湾"),
        ("ＧＰＵ伺服器", "gpu伺服器"),
        ("㈱ Ｃａｆé", "(株) café"),
    ],
)
def test_variants_of_one_text_have_the_same_terms(one, other):
    assert terms(one) == terms(other)
    assert query_terms(one) == query_terms(other)


# ---------------------------------------------------------------- where terms stand


def marked(text, question):
    return [text[start:end] for start, end in term_spans(text, query_terms(question))]


@pytest.mark.parametrize(
    ("text", "question", "found"),
    [
        ("Parental leave is paid. PARENTAL!", "parental", ["Parental", "PARENTAL"]),
        ("The team's leave", "team leave", ["team", "leave"]),
        ("unpaid leaves", "leave", []),
        ("员工每年有二十天带薪年假。", "带薪年假有多少天", ["带薪年假"]),
        ("ＰＤＦ 文件與網路", "pdf 网路", ["ＰＤＦ", "網路"]),
        ("Straße und ﬁnanz", "strasse finanz", ["Straße", "ﬁnanz"]),
        ("cafe\u0301 au lait", "café", ["cafe\u0301"]),
        ("㍿ Ltd and 年假", "年假", ["年假"]),
        ("nothing here", "", []),
        ("", "leave", []),
    ],
)
def test_terms_are_found_in_the_text_as_it_is_written(text, question, found):
    assert marked(text, question) == found


@given(
    st.text(alphabet="aB ﬁß①年假期網路é\u0301'’s.\n", max_size=60),
    st.text(alphabet="ab fi年假期网路", max_size=8),
)
def test_spans_are_sorted_disjoint_and_hold_what_is_wanted(text, question):
    wanted = set(query_terms(question))
    spans = term_spans(text, wanted)
    last = -1
    for start, end in spans:
        assert last < start < end <= len(text)
        last = end
        assert wanted & set(terms(text[start:end]))
    if not spans:
        assert not wanted & set(terms(text))
