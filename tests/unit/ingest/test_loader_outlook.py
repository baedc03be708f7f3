"""Outlook messages read as in Outlook; the files are made here, byte by byte."""

from __future__ import annotations

import itertools
import struct

import pytest

from glm_rag.errors import DocumentError
from glm_rag_ingest.loaders import load
from glm_rag_ingest.loaders.compressed_rtf import decompress

FREE, END, FAT = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
STORAGE, STREAM, ROOT = 1, 2, 5


def ole(streams):
    """A compound file ([MS-CFB]) of `{path: bytes}`; streams under 4096 bytes, in the mini area."""
    tree = {}
    for path, data in streams.items():
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = data
    entries, mini, mini_fat, sectors, fat = [], b"", [], [], []

    def keep(data):
        """Append to the file's sectors as one chain; returns its first sector."""
        first, count = len(sectors), -(-len(data) // 512)
        sectors.extend(data[i : i + 512].ljust(512, b"\0") for i in range(0, len(data), 512))
        fat.extend([*range(first + 1, first + count), END])
        return first

    def add(name, node):
        nonlocal mini
        index = len(entries)
        entries.append(None)
        if isinstance(node, bytes):
            start, count = len(mini_fat), -(-len(node) // 64)
            mini += node.ljust(64 * count, b"\0")
            mini_fat.extend([*range(start + 1, start + count), END] if count else [])
            entries[index] = [name, STREAM, FREE, FREE, start, len(node)]
            return index
        children = [add(child, node[child]) for child in sorted(node)]
        for left, right in itertools.pairwise(children):
            entries[left][2] = right  # a list, which is a tree leaning right
        kind = ROOT if index == 0 else STORAGE
        entries[index] = [name, kind, FREE, children[0] if children else FREE, END, 0]
        return index

    add("Root Entry", tree)
    entries[0][4:] = [keep(mini), len(mini)]
    mini_at = keep(b"".join(struct.pack("<I", at) for at in mini_fat).ljust(512, b"\xff"))
    directory = b""
    for name, kind, right, child, start, size in entries:
        raw = name.encode("utf-16-le") + b"\0\0"
        directory += raw.ljust(64, b"\0") + struct.pack("<HBB", len(raw), kind, 1)
        directory += struct.pack("<III", FREE, right, child) + bytes(36)
        directory += struct.pack("<IQ", start, size)
    first = keep(directory)
    fat_at = len(sectors)
    fat.append(FAT)
    assert len(fat) <= 128
    table = struct.pack("<128I", *fat, *[FREE] * (128 - len(fat)))
    header = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(16)
    header += struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + bytes(6)
    header += struct.pack("<IIIIIIIII", 0, 1, first, 0, 4096, mini_at, 1, END, 0)
    header += struct.pack("<109I", fat_at, *[FREE] * 108)
    return header + b"".join(sectors) + table


def wide(text):
    return text.encode("utf-16-le")


def properties(header=32, **values):
    """The stream of values of fixed length; `values` are `p0039=number`."""
    entries = b"".join(
        struct.pack("<IIQ", int(name[1:], 16) << 16 | 3, 6, value) for name, value in values.items()
    )
    return bytes(header) + entries


def message(**changes):
    streams = {
        "__properties_version1.0": properties(p0039=133_854_336_000_000_000, p3FFD=936),
        "__substg1.0_0037001F": wide("关于会议"),
        "__substg1.0_0C1A001F": wide("Li Lei"),
        "__substg1.0_0C1F001F": wide("/O=EXCHANGE/CN=LI"),
        "__substg1.0_5D01001F": wide("li@example.org"),
        "__substg1.0_0E04001F": wide("Han"),
        "__substg1.0_1000001F": wide("Body.\r\n"),
    }
    streams.update(changes.pop("streams", {}))
    return ole({name: data for name, data in streams.items() if data is not None})


@pytest.fixture
def read(tmp_path):
    def write_and_load(data):
        path = tmp_path / "a.msg"
        path.write_bytes(data)
        return load(path)

    return write_and_load


def test_headers_and_body(read):
    document = read(message()).documents[0]
    assert document.title == "关于会议"
    assert document.media_type == "application/vnd.ms-outlook"
    assert document.text == (
        "From: Li Lei <li@example.org>\nTo: Han\nDate: 2025-03-03 00:00 UTC\nSubject: 关于会议\n\n"
        "Body."
    )


def test_text_of_an_old_message_is_in_its_code_page(read):
    streams = {"__substg1.0_0037001F": None, "__substg1.0_0037001E": "会议".encode("gbk")}
    assert read(message(streams=streams)).documents[0].title == "会议"


def test_html_and_rtf_bodies_are_read_where_there_is_no_plain_one(read):
    page = {"__substg1.0_1000001F": None, "__substg1.0_10130102": "<p>页 <b>面</b>".encode("gbk")}
    assert read(message(streams=page)).documents[0].text.endswith("\n\n页 面")
    rtf = rb"{\rtf1\ansi Rich words.\par}"
    packed = struct.pack("<IIII", len(rtf) + 12, len(rtf), 0x414C454D, 0) + rtf
    streams = {"__substg1.0_1000001F": None, "__substg1.0_10090102": packed}
    assert read(message(streams=streams)).documents[0].text.endswith("\n\nRich words.")


def test_compressed_rtf_follows_the_published_examples():
    # [MS-OXRTFCP] 3.1.1 and 3.1.2
    simple = (
        "2d0000002b0000004c5a4675f1c5c7a703000a00726370673132354232"
        "0af32068656c090020627705b06c647d0a800fa0"
    )
    crossing = "1a0000001c0000004c5a4675e2d44b51410004205758595a0d6e7d010eb0"
    assert decompress(bytes.fromhex(simple)) == b"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n"
    assert decompress(bytes.fromhex(crossing)) == b"{\\rtf1 WXYZWXYZWXYZWXYZWXYZ}"
    for cut in range(16, 40):
        decompress(bytes.fromhex(simple)[:cut])
    with pytest.raises(DocumentError, match=r"^corrupt: "):
        decompress(b"\x10\0\0\0\x10\0\0\0WHAT\0\0\0\0data")


def test_attachments_are_members_and_so_is_an_attached_message(read):
    first, second, third = (f"__attach_version1.0_#0000000{i}" for i in range(3))
    inner = f"{third}/__substg1.0_3701000D"
    streams = {
        f"{first}/__substg1.0_3707001F": wide("../报告.txt"),
        f"{first}/__substg1.0_37010102": b"A report.",
        f"{second}/__substg1.0_3704001F": wide("logo.png"),
        f"{second}/__substg1.0_37010102": b"\x89PNG",
        f"{third}/__substg1.0_3001001F": wide("Old mail"),
        f"{inner}/__properties_version1.0": properties(24),
        f"{inner}/__substg1.0_0037001F": wide("Inner"),
        f"{inner}/__substg1.0_1000001F": wide("Inner body."),
        f"{inner}/{first}/__substg1.0_3707001F": wide("deep.txt"),
        f"{inner}/{first}/__substg1.0_37010102": b"Deep words.",
    }
    document, *members = read(message(streams=streams)).documents
    assert document.text.endswith("Body.")
    assert [(member.title, member.text) for member in members] == [
        ("_报告.txt", "A report."),
        ("Old mail.txt", "Subject: Inner\n\nInner body."),
        ("deep.txt", "Deep words."),
    ]
    assert members[-1].source == f"{document.source}#Old%20mail/deep.txt"


@pytest.mark.parametrize(
    "data", [b"plain text", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), ole({"a": b"x"})]
)
def test_what_is_no_message_is_corrupt(read, data):
    with pytest.raises(DocumentError) as caught:
        read(data)
    assert caught.value.reason == "corrupt"
