"""Questions made of sentences: they ask for what they leave out."""

import pytest

from glm_rag.evaluation.answer_metrics import contains
from glm_rag.evaluation.matching import Paragraph
from glm_rag.evaluation.synthesize import first_question, prompt_for, synthesize


def made(*texts, count=100, **options):
    return list(synthesize([(f"doc {n}", t) for n, t in enumerate(texts)], count, **options))


@pytest.mark.parametrize(
    ("sentence", "question", "answer"),
    [
        (
            "Parental leave in the company lasts 26 weeks with full pay.",
            "Parental leave in the company lasts how many weeks with full pay?",
            "26",
        ),
        (
            "In 1998, the library moved into the old station building.",
            "In which year, the library moved into the old station building?",
            "1998",
        ),
        (
            "The new canteen opened its doors on 3 May 2021 with a free lunch.",
            "The new canteen opened its doors on what date with a free lunch?",
            "3 May 2021",
        ),
        (
            "Old machines still make up 35% of the whole production volume.",
            "Old machines still make up what percentage of the whole production volume?",
            "35",
        ),
        (
            "The reading room was designed by Zaha Hadid, an architect from London.",
            "The reading room was designed by what or whom, an architect from London?",
            "Zaha Hadid",
        ),
        ("正式员工每年享有20天带薪年假。", "正式员工每年享有多少天带薪年假？", "20"),
        ("公司于2015年在北京成立研发中心。", "公司于哪一年在北京成立研发中心？", "2015"),
        ("节日加班的津贴为平时工资的5%。", "节日加班的津贴为平时工资的百分之多少？", "5"),
        ("新员工须签署《保密协议》并领卡。", "新员工须签署什么并领卡？", "保密协议"),
    ],
)  # fmt: skip
def test_a_fact_becomes_a_question_in_its_own_language(sentence, question, answer):
    (found,) = made(f"Introduction.\n\n{sentence}")
    assert (found.text, found.answers, found.source) == (question, (answer,), "doc 0")
    assert found.paragraph == sentence


@pytest.mark.parametrize(
    "sentence",
    [
        "It lasts 26 weeks with full pay for every one of the employees.",
        "The rule of 26 weeks means that 26 weeks of leave are granted.",
        "How do employees ask for 26 weeks of parental leave in one piece?",
        "26 weeks.",
        "Employees who want leave have to ask for it long before it begins.",
        "| Parental leave | 26 weeks of full pay for all | half of the pay.",
        "The period from 1998 to 2005 of the project was long and boring.",
        "他们每年享有20天带薪年假和病假若干。",
        "第3条规定了每这两天的工作时间和休息时间。",
    ],
)
def test_a_sentence_that_cannot_stand_alone_or_gives_itself_away_is_left(sentence):
    assert made(sentence) == []


TEXTS = [
    "\n".join(
        f"Room {chr(65 + n)} of house {d} holds {n + 30} chairs for guests of the house."
        for n in range(9)
    )
    for d in "xyz"
]


def test_no_question_holds_its_answer_and_every_sentence_stands_in_its_document():
    questions = made(*TEXTS)
    assert len(questions) == 27
    for question in questions:
        assert not contains(question.text, question.answers)
        assert Paragraph(question.paragraph).overlaps(TEXTS[int(question.source[-1])])


def test_documents_take_turns_and_a_seed_repeats():
    questions = made(*TEXTS, count=6)
    assert sorted(q.source[-1] for q in questions) == [*"001122"]
    assert questions == made(*TEXTS, count=6) != made(*TEXTS, count=6, seed=1)


def test_a_model_may_ask_in_its_own_words_unless_it_gives_the_answer_away():
    sentence = "Parental leave in the company lasts 26 weeks with full pay."
    for said, asked in (
        ("How long is parental leave?", "How long is parental leave?"),
        ("Is parental leave 26 weeks long?", "Parental leave in the company lasts how many"),
        ("Sure.", "Parental leave in the company lasts how many"),
        ("", "Parental leave in the company lasts how many"),
    ):
        (found,) = made(sentence, rewrite=lambda fact, said=said: first_question(said))
        assert found.text.startswith(asked)
        assert found.answers == ("26",)


@pytest.mark.parametrize(
    ("reply", "question"),
    [
        ("Question: How long is leave? Answer: long.", "How long is leave?"),
        ('Sure! Here it is.\n\n**"How long is leave?"**', ""),
        ("Sure. How long\nis leave?", "How long is leave?"),
        ("问题：年假有多少天？", "年假有多少天？"),
        ("Nothing.", ""),
    ],
)
def test_the_first_question_of_a_reply(reply, question):
    assert first_question(reply) == question


def test_a_model_is_told_sentence_and_answer_in_the_sentence_s_language():
    told = []
    made("正式员工每年享有20天带薪年假。", rewrite=lambda fact: told.append(prompt_for(fact)) or "")
    assert "句子：正式员工每年享有20天带薪年假。" in told[0]
    assert "答案是“20”" in told[0]
