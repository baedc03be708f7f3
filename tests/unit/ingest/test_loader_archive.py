"""A ZIP's members become documents; what is hostile costs little and says why."""

from __future__ import annotations

import io
import resource
import stat
import struct
import time
import zipfile
from contextlib import contextmanager

import pytest

from glm_rag.errors import DocumentError
from glm_rag_ingest.loaders import is_current, load, members

TEXT = "A sentence that somebody wrote."


def zipped(entries, *, compression=zipfile.ZIP_DEFLATED):
    """Bytes of an archive of names (or `ZipInfo`s) and contents."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries.items() if isinstance(entries, dict) else entries:
            archive.writestr(name, data)
    return file.getvalue()


def with_raw_names(names):
    """An archive whose names are bytes without the mark of UTF-8, as old programs write them."""
    stand_ins = [chr(ord("A") + i) * len(name) for i, name in enumerate(names)]
    data = zipped(dict.fromkeys(stand_ins, TEXT))
    for stand_in, name in zip(stand_ins, names, strict=True):
        data = data.replace(stand_in.encode(), name)
    return data


@pytest.fixture
def read(tmp_path):
    def write_and_load(data, name="a.zip"):
        path = tmp_path / name
        path.write_bytes(data)
        return load(path)

    return write_and_load


@pytest.fixture
def reason_of(read):
    def fail(data):
        with pytest.raises(DocumentError) as caught:
            read(data)
        return str(caught.value)

    return fail


@contextmanager
def bounded(*, seconds, mebibytes):
    """Fail where the block takes long, or raises this process's peak memory by much."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    yield
    assert time.process_time() - started < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < mebibytes * 1024


def paths(loaded):
    """Paths inside, of documents and of failures with their errors."""
    documents = [d.source.partition("#")[2] for d in loaded.documents[1:]]
    return documents, {f.source.partition("#")[2]: f.error for f in loaded.failures}


# ---------------------------------------------------------------- what is read


def test_members_follow_the_archive_with_sources_below_it(read, tmp_path):
    data = zipped({"b.txt": TEXT, "sub folder/a#1.md": "# Title\n\nText.", "empty/": ""})
    loaded = read(data)
    archive, text, page = loaded.documents
    uri = (tmp_path / "a.zip").as_uri()
    assert (archive.source, archive.text, archive.title) == (uri, "", "a.zip")
    assert (archive.media_type, archive.container) == ("application/zip", "")
    assert (text.source, text.title, text.text) == (f"{uri}#b.txt", "b.txt", TEXT)
    assert (page.source, page.title) == (f"{uri}#sub%20folder/a%231.md", "Title")
    assert {text.container, page.container} == {uri}
    assert {text.mtime, page.mtime} == {archive.mtime}
    assert (text.size, len(text.sha256)) == (len(TEXT), 64)
    assert loaded.failures == ()


def test_archives_and_mails_inside_are_opened_too(read, make_pdf, pdf_text):
    mail = (
        "From: a@b.c\nSubject: Hello\nMIME-Version: 1.0\nContent-Type: multipart/mixed; "
        "boundary=X\n\n--X\nContent-Type: text/plain\n\nBody.\n--X\nContent-Type: application/pdf;"
        " name=rain.pdf\nContent-Disposition: attachment\n\n"
    )
    pdf = make_pdf(pdf_text("A paper about rain."))
    inner = zipped({"mail.eml": mail.encode() + pdf + b"\n--X--\n"})
    found, failed = paths(read(zipped({"inner.zip": inner, "a.txt": TEXT})))
    assert found == ["inner.zip/mail.eml", "inner.zip/mail.eml/rain.pdf", "a.txt"]
    assert failed == {}


def test_levels_beyond_the_third_are_refused_with_one_failure(read):
    data = zipped({"deep.txt": TEXT, "deep2.txt": TEXT})
    for level in ("c", "b", "a"):
        data = zipped({f"{level}.txt": TEXT, f"{level}.zip": data})
    found, failed = paths(read(data))
    assert found == ["a.txt", "a.zip/b.txt", "a.zip/b.zip/c.txt"]
    assert list(failed) == ["a.zip/b.zip/c.zip/deep.txt"]
    assert "3 levels" in failed["a.zip/b.zip/c.zip/deep.txt"]


def test_one_bad_member_costs_only_itself(read):
    loaded = read(
        zipped({"bad.pdf": b"%PDF-1.4 cut", "x.exe": b"MZ\0", "a.txt": TEXT, "e.txt": ""})
    )
    found, failed = paths(loaded)
    assert found == ["a.txt"]
    assert [failed[name].partition(":")[0] for name in ("bad.pdf", "x.exe", "e.txt")] == [
        "corrupt",
        "unsupported",
        "empty",
    ]
    assert {failure.stage for failure in loaded.failures} == {"load"}


def test_junk_and_hidden_files_are_left_out_silently(read):
    junk = ("__MACOSX/._a.txt", ".DS_Store", ".git/config", "~$a.docx", "x/Thumbs.db", "._b")
    assert paths(read(zipped({**dict.fromkeys(junk, "junk"), "a.txt": TEXT}))) == (["a.txt"], {})


def test_two_members_of_one_name_are_two_documents(read):
    with pytest.warns(UserWarning, match="Duplicate"):
        data = zipped([("a.txt", "First."), ("a.txt", "Second.")])
    loaded = read(data)
    assert paths(loaded)[0] == ["a.txt", "a.txt~2"]
    assert [document.text for document in loaded.documents] == ["", "First.", "Second."]


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("gbk", ["合同/报价单.txt", "新建文本文档.txt"]),
        ("big5", ["會議記錄/第一次會議.txt"]),
        ("shift_jis", ["資料/会議の記録.txt", "表示.txt"]),
        ("utf-8", ["合同.txt"]),
        ("cp437", ["résumé.txt"]),
    ],
)
def test_names_are_as_their_writer_saw_them(read, encoding, names):
    loaded = read(with_raw_names([name.encode(encoding) for name in names]))
    assert [d.title for d in loaded.documents[1:]] == [name.rsplit("/", 1)[-1] for name in names]


def test_a_name_in_the_unicode_extra_field_wins(read):
    import zlib

    raw = b"?????.txt"
    field = struct.pack("<BI", 1, zlib.crc32(raw)) + "数据表.txt".encode()
    info = zipfile.ZipInfo(raw.decode())
    info.extra = struct.pack("<HH", 0x7075, len(field)) + field
    # Python marks ASCII names as plain, so the field is looked at only for others.
    data = zipped([(info, TEXT)]).replace(b"?????", b"\xca\xfd\xbe\xdd\xb1")
    crc = struct.pack("<I", zlib.crc32(b"\xca\xfd\xbe\xdd\xb1.txt"))
    data = data.replace(struct.pack("<I", zlib.crc32(raw)), crc)
    assert read(data).documents[1].title == "数据表.txt"


def test_an_archive_is_read_again_when_any_loader_changes(read, monkeypatch):
    from glm_rag_ingest.loaders import factory, markdown

    version = read(zipped({"a.txt": TEXT})).documents[0].parser_version
    assert is_current(version)
    with monkeypatch.context() as patched:
        patched.setattr(markdown, "VERSION", "markdown/999")
        factory.versions.cache_clear()
        assert not is_current(version)
    factory.versions.cache_clear()
    assert is_current(version)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "name",
    ["../x.txt", "a/../../x.txt", "/etc/x.txt", "C:/x.txt", "c:x.txt", "a\\..\\x.txt", "a\\b.txt"],
)
def test_a_name_that_leads_out_is_refused_and_nothing_is_written(read, tmp_path, name):
    before = sorted(tmp_path.parent.rglob("*"))
    found, failed = paths(read(zipped({name: TEXT, "a.txt": TEXT})))
    assert found == ["a.txt"]
    assert [error.startswith("unsupported: refused: ") for error in failed.values()] == [True]
    assert set(tmp_path.parent.rglob("*")) - set(before) == {tmp_path / "a.zip"}


def test_a_nul_in_a_name_is_refused(read):
    data = with_raw_names([b"a.txt\0b.exe", b"ok.txt"])
    found, failed = paths(read(data))
    assert found == ["ok.txt"]
    assert list(failed.values()) == ["unsupported: refused: a NUL in its name"]


def test_a_symbolic_link_is_not_followed(read):
    link = zipfile.ZipInfo("link.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    found, failed = paths(read(zipped([(link, "/etc/passwd"), ("a.txt", TEXT)])))
    assert found == ["a.txt"]
    assert failed == {"link.txt": "unsupported: a symbolic link, which is not followed"}


def encrypted(data):
    """The same archive with the bit that says a password is needed, in both its headers."""
    data = bytearray(data)
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.find(mark)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(mark, at + 4)
    return bytes(data)


def test_an_archive_with_a_password_says_so(reason_of, read):
    assert reason_of(encrypted(zipped({"a.txt": TEXT, "b.txt": TEXT}))) == (
        "encrypted: none of the 2 files in it can be read; the first: encrypted: it needs a "
        "password; unpack the archive"
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (zipped({}), "empty: an archive without files"),
        (zipped({"folder/": ""}), "empty: an archive without files"),
        (zipped({".DS_Store": "x"}), "empty: no files in it, or only hidden ones"),
        (b"PK\3\4 cut off", "corrupt: "),
        (zipped({"a.txt": TEXT * 100})[:-40], "corrupt: "),
        (zipped({"a.exe": b"MZ\0"}), "unsupported: none of the 1 files in it can be read; the"),
    ],
)
def test_an_archive_without_any_text_is_a_failure_with_its_reason(reason_of, data, reason):
    line = reason_of(data)
    assert line.startswith(reason)
    assert "\n" not in line


def test_a_damaged_member_is_corrupt_and_the_next_is_read(read):
    data = bytearray(zipped({"a.txt": TEXT, "b.txt": TEXT}, compression=zipfile.ZIP_STORED))
    data[data.index(TEXT.encode())] ^= 1
    found, failed = paths(read(bytes(data)))
    assert found == ["b.txt"]
    assert failed["a.txt"].startswith("corrupt: damaged inside the archive")


# ---------------------------------------------------------------- bombs


@pytest.fixture(scope="module")
def zeros():
    """An archive of one entry of 300 MiB of zeros (300 KB packed)."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("zeros.txt", "w", force_zip64=True) as entry,
    ):
        for _ in range(300):
            entry.write(bytes(1 << 20))
    return file.getvalue()


def with_size(data, size):
    """The archive with another unpacked size in the header that lists the (first) entry."""
    data = bytearray(data)
    at = data.rfind(b"PK\1\2")
    struct.pack_into("<I", data, at + 24, size)
    return bytes(data)


def test_a_huge_entry_is_refused_by_its_stated_size(reason_of, zeros):
    with bounded(seconds=2, mebibytes=50):
        assert "larger than 256 MiB" in reason_of(zeros)


@pytest.mark.parametrize("size", [10, 200 << 20])
def test_a_huge_entry_that_states_a_small_size_is_refused_too(reason_of, zeros, size):
    with bounded(seconds=10, mebibytes=600):
        line = reason_of(with_size(zeros, size))
    assert line.partition(":")[0] in ("corrupt", "unsupported")


def test_an_entry_that_states_too_much_is_no_more_than_it_is(read):
    found, failed = paths(read(with_size(zipped({"a.txt": TEXT}), 1 << 20)))
    assert found == ["a.txt"] or failed["a.txt"].startswith("corrupt")


def test_many_entries_that_unpack_to_much_stop_at_the_limit_of_the_file(read, monkeypatch):
    monkeypatch.setattr(members, "FREE_BYTES", 10_000_000)
    block = zipped({"a.txt": b"x " * (2 << 20)})
    data = zipped({"ok.txt": TEXT, **{f"{i}.zip": block for i in range(40)}})
    assert len(data) * members.MOST_RATIO < 41_000_000
    with bounded(seconds=10, mebibytes=200):
        found, failed = paths(read(data))
    assert found == ["ok.txt", *(f"{i}.zip/a.txt" for i in range(len(found) - 1))]
    assert len(found) < 11
    assert ["unpacks to more than" in error for error in failed.values()] == [True]


def test_nested_bombs_cost_the_levels_that_are_opened(read):
    data = zipped({"zeros.txt": bytes(50_000_000)})
    for _ in range(5):
        data = zipped({f"{i}.zip": data for i in range(16)})
    with bounded(seconds=20, mebibytes=400), pytest.raises(DocumentError) as caught:
        read(data)
    assert caught.value.reason == "unsupported"


def test_more_members_than_the_limit_are_left_out_with_one_failure(read, monkeypatch):
    monkeypatch.setattr(members, "MOST_MEMBERS", 50)
    found, failed = paths(read(zipped({f"{i:03}.txt": TEXT for i in range(60)})))
    assert len(found) == 50
    assert failed == {
        "050.txt": "unsupported: more than 50 files in one; this file and the rest are left out; "
        "split it"
    }


def test_a_hundred_thousand_entries_are_bounded(read):
    data = zipped({f"{i}.txt": "x" for i in range(100_000)}, compression=zipfile.ZIP_STORED)
    with bounded(seconds=30, mebibytes=400):
        loaded = read(data)
    assert len(loaded.documents) == 1 + members.MOST_MEMBERS
    assert len(loaded.failures) == 1


def test_an_archive_that_lists_millions_is_refused_before_it_is_listed(reason_of):
    with bounded(seconds=3, mebibytes=200):
        line = reason_of(b"PK\3\4" + (b"PK\1\2" + bytes(42)) * 400_000)
    assert line == "unsupported: an archive of more than 300,000 files; split it"


def test_a_tower_of_archives_ends_at_the_third_level(read):
    """As one that holds itself would."""
    inner = zipped({"a.txt": TEXT}, compression=zipfile.ZIP_STORED)
    for _ in range(30):
        inner = zipped({"a.txt": TEXT, "r.zip": inner}, compression=zipfile.ZIP_STORED)
    found, failed = paths(read(inner))
    assert found == ["a.txt", "r.zip/a.txt", "r.zip/r.zip/a.txt"]
    assert list(failed) == ["r.zip/r.zip/r.zip/a.txt"]
