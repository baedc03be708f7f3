"""Bytes become the characters their writer saw, whatever the encoding and however short."""

from __future__ import annotations

import pytest

from glm_rag.errors import DocumentError
from glm_rag_ingest.loaders.encoding import decode, decode_names, lost_characters

SIMPLIFIED = (
    "公司规定，员工每年可以休假十五天，新员工从第四个月开始计算。请假要提前三天在网上提交申请，"
    "由部门经理批准；病假需要医院的证明。出差回来以后，应当在两个星期之内报销，发票上的名称必须"
    "和合同一致。如果对这些内容有问题，可以给人事部打电话，也可以发邮件。我们会在一个工作日之内"
    "回答。本制度从今年一月一日起施行，以前的通知同时作废，各地分公司可以根据当地的情况作出补充。"
)
TRADITIONAL = (
    "公司規定，員工每年可以休假十五天，新員工從第四個月開始計算。請假要提前三天在網上提交申請，"
    "由部門經理批准；病假需要醫院的證明。出差回來以後，應當在兩個星期之內報銷，發票上的名稱必須"
    "和合約一致。如果對這些內容有問題，可以給人事部打電話，也可以發郵件。我們會在一個工作日之內"
    "回答。本制度從今年一月一日起施行，以前的通知同時作廢，各地分公司可以根據當地的情況作出補充。"
)
JAPANESE = (
    "社員は毎年十五日の休暇を取ることができます。新しい社員は四か月目から数えます。休みを取るとき"
    "は三日前までに申請し、部長の許可を得てください。病気の場合は医者の証明が必要です。出張から戻った"
    "あと、二週間以内に精算してください。ご質問があれば、人事部に電話かメールでお問い合わせください。"
    "一日以内にお答えします。この規則は今年の一月一日から使われ、これまでのお知らせは無効になります。"
)
KOREAN = (
    "직원은 해마다 십오 일의 휴가를 쓸 수 있으며, 새로 들어온 직원은 넉 달째부터"
    " 계산한다. 휴가를 쓰려면 사흘 전에 신청하고 부장의 허락을 받아야 한다. 아픈"
    " 경우에는 병원의 증명서가 필요하다. 출장에서 돌아온 뒤에는 두 주 안에 비용을"
    " 정산해야 한다. 질문이 있으면 인사부에 전화하거나 편지를 보내면 하루 안에 대"
    "답한다. 이 규정은 올해 일월 일일부터 시행하며 이전의 안내는 모두 효력을 잃는"
    "다."
)
SAMPLES = {
    "gbk": SIMPLIFIED,
    "gb18030": SIMPLIFIED,
    "big5": TRADITIONAL,
    "shift_jis": JAPANESE,
    "euc-jp": JAPANESE,
    "euc-kr": KOREAN,
    "utf-8": KOREAN,
    "utf-16-le": SIMPLIFIED,
    "utf-16-be": JAPANESE,
    "utf-32-le": TRADITIONAL,
    "utf-32-be": SIMPLIFIED,
}


@pytest.mark.parametrize("encoding", SAMPLES)
@pytest.mark.parametrize("length", [10, 40, 180, 2000])
def test_text_reads_right_in_its_encoding_at_every_length(encoding, length):
    text = SAMPLES[encoding] * (1 + length // 180)
    for start in range(0, 180, 15):
        piece = text[start : start + length]
        assert decode(piece.encode(encoding)) == piece


@pytest.mark.parametrize("encoding", ["gbk", "big5", "shift_jis", "euc-kr", "utf-16-le"])
def test_two_lines_among_ascii_read_right(encoding):
    text = f"# config v2\r\n{SAMPLES[encoding][:16]}\r\npath = /srv/data, retries = 3\r\n"
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Grüße aus Köln"),
        ("cp1252", "L'été était très chaud, 3,50 €"),
        ("cp1252", "naïve café"),
        ("cp1252", "“Quoted” – with a dash"),
        ("cp1251", "Все люди рождаются свободными и равными в своём достоинстве и правах."),
        ("koi8-r", "Все люди рождаются свободными и равными в своём достоинстве и правах."),
    ],
)
def test_european_text_is_not_taken_for_asian(encoding, text):
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize("encoding", ["gbk", "big5", "shift_jis", "euc-kr", "euc-jp"])
def test_a_declared_charset_of_single_bytes_gives_way_to_what_reads_as_text(encoding):
    assert decode(SAMPLES[encoding].encode(encoding), "iso-8859-1") == SAMPLES[encoding]


def test_a_declared_charset_wins_where_its_bytes_fit():
    ambiguous = "한국".encode("euc-kr")
    assert decode(ambiguous, "euc-kr") == "한국"
    assert decode(ambiguous, "gbk") == ambiguous.decode("gbk")
    assert decode("schön".encode("latin-1"), "latin1") == "schön"


def test_a_broken_byte_costs_a_character_and_a_warning_not_the_encoding():
    for encoding, lost in (("utf-8", 1), ("gbk", 1), ("big5", 1), ("shift_jis", 1)):
        data = bytearray(SAMPLES[encoding].encode(encoding))
        data[120:120] = b"\xff"
        text = decode(bytes(data))
        assert SAMPLES[encoding][-60:] in text
        assert text.count("\ufffd") == lost
        assert lost_characters(text) == (f"{lost} unreadable characters, shown as \ufffd",)
    assert lost_characters(SIMPLIFIED) == ()


def test_utf8_cut_off_within_a_character_stays_utf8():
    assert decode(SIMPLIFIED.encode()[:-1]) == SIMPLIFIED[:-1] + "\ufffd"


@pytest.mark.parametrize(
    "data", [bytes(range(256)) * 40, b"\0\1\2\3" * 100, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" * 50]
)
def test_binary_data_is_no_text(data):
    with pytest.raises(DocumentError, match=r"^corrupt: "):
        decode(data)


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("utf-8", ["合同/报价单.txt"]),
        ("gbk", ["新建文本文档.txt"]),
        ("gbk", ["readme.txt", "合同/报价单.xlsx", "易燃易爆剧毒.pdf"]),
        ("big5", ["會議記錄/第一次會議.txt", "新增資料夾/檔案.txt"]),
        ("shift_jis", ["資料/会議の記録.txt", "新しいフォルダー/メモ.txt"]),
        ("euc-kr", ["새 폴더/회의 자료.txt"]),
        ("cp437", ["Müller/Übersicht.txt"]),
        ("cp437", ["résumé.txt", "année.txt"]),
    ],
)
def test_names_in_archives_are_as_their_writer_saw_them(encoding, names):
    assert decode_names([name.encode(encoding) for name in names]) == names
