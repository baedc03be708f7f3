"""A mail reads as its reader shows it; what hangs on it are documents of their own."""

from __future__ import annotations

from email.message import EmailMessage

import pytest

from glm_rag.errors import DocumentError
from glm_rag_ingest.loaders import load

ZH = "会议改到星期五上午十点，请带上报告。"


@pytest.fixture
def read(tmp_path):
    def write_and_load(data, name="a.eml"):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return load(path)

    return write_and_load


def mail(text="Body.", subject="Hello"):
    message = EmailMessage()
    message["From"] = "Li Lei <li@example.org>"
    message["To"] = "Han <han@example.org>"
    message["Date"] = "Mon, 03 Mar 2025 10:00:00 +0800"
    message["Subject"] = subject
    message.set_content(text)
    return message


def names(loaded):
    return [document.source.partition("#")[2] for document in loaded.documents[1:]]


def test_headers_come_first_then_the_body(read):
    document = read(mail(subject="关于会议").as_bytes()).documents[0]
    assert document.title == "关于会议"
    assert document.media_type == "message/rfc822"
    assert document.text == (
        "From: Li Lei <li@example.org>\nTo: Han <han@example.org>\n"
        "Date: Mon, 03 Mar 2025 10:00:00 +0800\nSubject: 关于会议\n\nBody."
    )


@pytest.mark.parametrize("charset", ["utf-8", "gb2312", "gb18030", "big5", "x-unknown", "us-ascii"])
@pytest.mark.parametrize("transfer", ["base64", "quoted-printable", "8bit"])
def test_a_body_reads_right_whatever_is_said_about_it(read, charset, transfer):
    import base64
    import quopri

    octets = ZH.encode("gb18030" if charset in ("gb2312", "x-unknown", "us-ascii") else "utf-8")
    packed = {"base64": base64.encodebytes, "quoted-printable": quopri.encodestring}
    body = packed.get(transfer, bytes)(octets)
    if charset == "gb18030" or charset == "big5":
        charset = "utf-8"
    head = f"Subject: x\nContent-Type: text/plain; charset={charset}\n"
    data = f"{head}Content-Transfer-Encoding: {transfer}\n\n".encode() + body
    assert read(data).documents[0].text == f"Subject: x\n\n{ZH}"


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        (b"=?gb2312?B?u+HS6Q==?= today", "会议 today"),
        (b"=?UTF-8?Q?=E4=BC=9A?=\r\n =?UTF-8?Q?=E8=AE=AE?=", "会议"),
        (b"=?utf-8?B?5Lya6K6?=", None),
        (b"=?x-nonsense?Q?a=62c?=", "abc"),
        ("关于会议的通知和安排".encode("gbk"), "关于会议的通知和安排"),
        ("会议".encode(), "会议"),
        (b"Re: a\r\n  folded line", "Re: a folded line"),
    ],
)
def test_a_subject_in_any_encoding_reads_or_stays(read, subject, shown):
    title = read(b"From: a@b.c\r\nSubject: " + subject + b"\r\n\r\nx").documents[0].title
    assert title == shown or (shown is None and title)


def test_plain_text_is_preferred_to_html_and_html_read_where_alone(read):
    both = mail("Plain words.")
    both.add_alternative("<p>Rich <b>words</b></p>", subtype="html")
    assert read(both.as_bytes()).documents[0].text.endswith("\n\nPlain words.")
    blank = mail(" \n")
    blank.add_alternative("<p>Rich <b>words</b></p><script>x</script>", subtype="html")
    assert read(blank.as_bytes()).documents[0].text.endswith("\n\nRich words")


def test_flowed_lines_are_joined(read):
    data = (
        "Subject: x\nContent-Type: text/plain; format=flowed\n\n"
        "one \ntwo\n> quoted \n> more\n-- \nMe"
    )
    assert read(data).documents[0].text.split("\n\n")[1] == "one two\n> quoted\n> more\n--\nMe"


def test_attachments_become_members_and_pictures_do_not(read):
    message = mail()
    message.add_attachment("# 标题\n\n内容。".encode(), "text", "markdown", filename="报告.md")
    message.add_attachment(b"plain", "text", "plain", filename="same.txt")
    message.add_attachment(b"again", "text", "plain", filename="same.txt")
    message.add_attachment(b"\x89PNG", "image", "png", filename="logo.png")
    message.add_attachment(b"no name", "text", "plain")
    loaded = read(message.as_bytes())
    assert names(loaded) == [
        "%E6%8A%A5%E5%91%8A.md",
        "same.txt",
        "same.txt~2",
        "attachment-4.txt",
    ]
    assert loaded.documents[1].title == "标题"
    assert loaded.documents[1].container == loaded.documents[0].source
    assert loaded.failures == ()


def test_a_mail_inside_a_mail_is_a_member_with_its_own(read):
    inner = mail("Inner body.", "Old / news")
    inner.add_attachment(b"deep", "text", "plain", filename="deep.txt")
    outer = mail("Outer body.")
    outer.add_attachment(inner)
    loaded = read(outer.as_bytes())
    assert names(loaded) == ["Old%20_%20news.eml", "Old%20_%20news.eml/deep.txt"]
    assert "Inner body." not in loaded.documents[0].text
    assert "Inner body." in loaded.documents[1].text
    assert loaded.documents[1].title == "Old / news"


def test_an_attachment_that_cannot_be_read_is_listed_and_the_mail_read(read):
    message = mail()
    message.add_attachment(b"MZ\0", "application", "x-msdownload", filename="../../setup.exe")
    loaded = read(message.as_bytes())
    assert loaded.documents[0].text.endswith("Body.")
    (failed,) = loaded.failures
    assert failed.source.endswith("a.eml#_.._setup.exe")
    assert failed.error.startswith("unsupported: .exe files are not read")


def test_a_saved_page_is_the_page_without_its_parts(read):
    data = (
        "From: <Saved by a browser>\nSubject: The page\nMIME-Version: 1.0\n"
        'Content-Type: multipart/related; type="text/html"; boundary=X\n\n'
        "--X\nContent-Type: text/html; charset=utf-8\nContent-Location: http://x/\n\n"
        "<h1>Top</h1><p>Text.</p>\n"
        "--X\nContent-Type: text/css\nContent-Location: http://x/a.css\n\np {}\n--X--\n"
    )
    loaded = read(data, "page.mhtml")
    assert "# Top\n\nText." in loaded.documents[0].text
    assert (loaded.documents[1:], loaded.failures) == ((), ())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"just some words\nwithout headers", "corrupt: not a mail"),
        (b"\0\1\2" * 100, "corrupt: not a mail"),
        (
            b"Subject: x\nContent-Type: application/pkcs7-mime; name=smime.p7m\n\nMIIB",
            "encrypted: the mail is encrypted",
        ),
    ],
)
def test_what_is_no_readable_mail_says_so(read, data, reason):
    with pytest.raises(DocumentError) as caught:
        read(data)
    assert str(caught.value).startswith(reason)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "data",
    [
        b"Subject: " + b"=?utf-8?q?a?= " * 50_000 + b"\n\nx",
        b"Subject: " + b"=?" * 200_000 + b"\n\nx",
        b"Subject: x\nContent-Type: text/plain; charset=" + b"a" * 200_000 + b"\n\nBody.",
        b"Subject: x\n" + b"X-A: b\n" * 100_000 + b"\nBody.",
        b"Subject: x\nContent-Type: multipart/mixed; boundary=X\n\n" + b"--X\n\nx\n" * 20_000,
    ],
)
def test_hostile_mails_take_time_in_proportion(read, data):
    assert read(data).documents[0].text


@pytest.mark.timeout(60)
def test_parts_nested_a_thousand_deep_end_with_a_reason(read):
    lines = ["Subject: x"]
    for level in range(1000):
        lines += [f"Content-Type: multipart/mixed; boundary=B{level}", "", f"--B{level}"]
    with pytest.raises(DocumentError, match=r"^corrupt: "):
        read("\n".join([*lines, "", "deep"]))
