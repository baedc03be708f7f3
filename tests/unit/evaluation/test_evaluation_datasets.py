"""Data sets are read row by row, and a bad row is named."""

import json

import pytest

from glm_rag.errors import ConfigError
from glm_rag.evaluation.datasets import Question, choose, read_dataset, write_csv

SQUAD = {
    "data": [
        {
            "title": "Leave",
            "paragraphs": [
                {
                    "context": "Leave is 26 weeks.",
                    "qas": [
                        {
                            "id": "a",
                            "question": "How long is leave?",
                            "answers": [{"text": "26 weeks", "answer_start": 9}] * 2,
                        },
                        {"question": "Who pays?", "is_impossible": True, "answers": []},
                    ],
                }
            ],
        }
    ]
}


@pytest.fixture
def write(tmp_path):
    def write_one(name, content):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_text(text, encoding="utf-8")
        return path

    return write_one


def test_squad_json_gives_paragraphs_answers_and_impossible_questions(write):
    first, second = read_dataset(write("q.json", SQUAD))
    assert first == Question(
        id="1.1.1",
        text="How long is leave?",
        answers=("26 weeks",),
        paragraph="Leave is 26 weeks.",
        group="article 1",
    )
    assert (second.id, second.answerable, second.answers) == ("1.1.2", False, ())


ROWS = [
    {"question": "How long is leave?", "answer": "26 weeks", "source": "leave.pdf"},
    {"question": "年假多少天？", "answer": "20天", "source": ""},
    {"question": "Who pays?", "answer": "", "source": "pay.pdf"},
    {"question": "What is the meaning of life?", "answer": "", "source": ""},
]
TABLE = "\n".join([",".join(ROWS[0]), *(",".join(row.values()) for row in ROWS)])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("q.csv", TABLE),
        ("q.csv", "\ufeff" + TABLE.replace("question", " Question", 1) + "\n,,\n"),
        ("q.tsv", TABLE.replace(",", "\t")),
        ("q.jsonl", "\n".join(map(json.dumps, ROWS))),
        ("q.json", ROWS),
    ],
)
def test_the_same_rows_in_any_format_are_the_same_questions(write, name, content):
    questions = read_dataset(write(name, content))
    assert [(q.text, q.answers, q.source, q.answerable, q.language) for q in questions] == [
        ("How long is leave?", ("26 weeks",), "leave.pdf", True, "en"),
        ("年假多少天？", ("20天",), "", True, "zh"),
        ("Who pays?", (), "pay.pdf", True, "en"),
        ("What is the meaning of life?", (), "", False, "en"),
    ]
    assert len({question.id for question in questions}) == 4


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "q.csv"
    question = Question("row 2", 'What, "who"?', ("a\nb",), "p, q", "s", "s")
    write_csv(path, [question])
    assert read_dataset(path) == [question]


def bad_squad(change):
    content = json.loads(json.dumps(SQUAD))
    change(content["data"][0]["paragraphs"][0])
    return content


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.txt", "x", "a data set is a .json, .jsonl, .csv or .tsv file"),
        ("q.csv", "", "holds no question"),
        ("q.csv", "question,answer\n", "holds no question"),
        (
            "q.csv",
            "frage,antwort\nx,y",
            "row 1: no column `question` in the header (columns: frage",
        ),
        ("q.csv", "question,answer\nx,y\n ,y", "row 3: `question` is empty"),
        ("q.csv", "question,answer\nx,1,200", "row 2: 3 cells under 2 columns"),
        ("q.csv", 'question,answer\nx,y\n"x,y', "row 3: unexpected end of data"),
        ("q.csv", "question\n年假".encode("gbk"), "line 2: not UTF-8; save the file as UTF-8"),
        ("q.jsonl", '{"question": "x"}\n{"question"', "line 2: not JSON"),
        ("q.jsonl", '{"question": "x"}\n[1]', "row 2: must be an object"),
        ("q.jsonl", '{"question": 1}', "row 1: `question` must be text, got int"),
        ("q.jsonl", '{"question": "x", "answer": {}}', "row 1: `answer` must be text or a list"),
        ("q.json", "{", "line 1: not JSON"),
        ("q.json", "[" * 200_000, "nested too deeply"),
        ("q.json", "7", "no list `data`, as SQuAD has it"),
        ("q.json", {"data": [{"paragraphs": [7]}]}, "article 1, paragraph 1: must be an object"),
        ("q.json", {"data": [{}]}, "article 1: no list `paragraphs`"),
        (
            "q.json",
            bad_squad(lambda paragraph: paragraph["qas"][1].pop("question")),
            "article 1, paragraph 1, question 2: no `question`",
        ),
        (
            "q.json",
            bad_squad(lambda paragraph: paragraph["qas"][0].pop("answers")),
            "article 1, paragraph 1, question 1: no list `answers`",
        ),
        (
            "q.json",
            bad_squad(lambda paragraph: paragraph["qas"][0]["answers"][1].pop("text")),
            "question 1, answer 2: no `text`",
        ),
    ],
)
def test_a_bad_file_gives_one_line_that_names_the_place(write, name, content, message):
    with pytest.raises(ConfigError) as error:
        read_dataset(write(name, content))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the data set"):
        read_dataset(tmp_path / "none.csv")


def test_a_sample_is_repeatable_in_order_and_of_the_wanted_size():
    questions = [Question(str(n), str(n)) for n in range(100)]
    assert choose(questions, 5, None) == questions[:5]
    drawn = choose(questions, 5, 7)
    assert drawn == choose(questions, 5, 7) != choose(questions, 5, 8)
    assert [int(q.id) for q in drawn] == sorted(int(q.id) for q in drawn)
    assert choose(questions, 500, 7) == questions
