"""Copies of the same bytes and members of archives: nothing stored twice, nothing lost."""

import dataclasses

import numpy as np
import pytest

from glm_rag.errors import KnowledgeBaseError
from glm_rag.types import IngestFailure, chunk_id

TEXT = "Parental leave is sixteen weeks. The end of it."


class Counting:
    """Wraps an embedder's `embed_documents` and counts the texts it was given."""

    def __init__(self, kb, monkeypatch):
        self.texts = []
        real = kb.embed

        def embed(texts):
            self.texts += texts
            return real(texts)

        monkeypatch.setattr(kb, "embed", embed)


@pytest.fixture
def embedded(kb, monkeypatch):
    return Counting(kb, monkeypatch).texts


def item(kb, make, source, text, container=""):
    document, chunks = make(source, text)
    return dataclasses.replace(document, container=container), chunks, kb.embed_chunks(chunks)


def put_archive(kb, make, source, members, failures=()):
    inside = [item(kb, make, f"{source}#{name}", text, source) for name, text in members.items()]
    own = item(kb, make, source, "")
    sha256 = "".join(f"{name}={text};" for name, text in members.items())
    own = (dataclasses.replace(own[0], sha256=sha256), *own[1:])
    return kb.put_documents([own, *inside], failures)


def sources(kb):
    return [document.source for document in kb.documents()]


def keys_are_of(kb, source):
    """Every chunk's id is the one that its document's source gives."""
    document = kb.get_document(source)
    chunks = kb.get_chunks(document.source)
    return chunks and all(
        chunk.id == chunk_id(source, chunk.metadata["start"], chunk.metadata["content_hash"])
        for chunk in chunks
    )


def add_copy(kb, source, of):
    kb.add_copy(source, of=of, size=9, mtime=3.0)


def test_a_copy_is_known_by_its_own_source_and_stores_nothing(kb, make):
    kb.put_document(*make("a.txt", TEXT))
    add_copy(kb, "b.txt", "a.txt")
    assert kb.info().num_documents == 1
    info = kb.get_document("b.txt")
    assert (info.source, info.size, info.mtime, info.copies) == ("b.txt", 9, 3.0, ("a.txt",))
    assert kb.get_document("a.txt").copies == ("b.txt",)
    assert kb.get_text("b.txt") == TEXT
    assert kb.get_chunks("b.txt") == kb.get_chunks("a.txt") != []
    assert set(kb.known_sources()) == {"a.txt", "b.txt"}
    assert kb.known_sources()["b.txt"] == info
    kb.touch("b.txt", size=10, mtime=4.0)
    assert (kb.get_document("b.txt").size, kb.get_document("a.txt").size) == (10, len(TEXT))


def test_removing_a_copy_leaves_the_document(kb, make):
    kb.put_document(*make("a.txt", TEXT))
    add_copy(kb, "b.txt", "a.txt")
    assert kb.remove("b.txt") is True
    assert kb.get_document("b.txt") is None
    assert (sources(kb), kb.get_document("a.txt").copies) == (["a.txt"], ())


def test_when_the_document_s_file_goes_a_copy_takes_its_place(kb, make, embedded):
    kb.put_document(*make("a.txt", TEXT))
    add_copy(kb, "b.txt", "a.txt")
    add_copy(kb, "c.txt", "b.txt")
    before = len(embedded)
    hits = kb.similarity_search("x", k=9)
    assert kb.remove("a.txt") is True
    info = kb.get_document("b.txt")
    assert (info.source, info.title, info.copies) == ("b.txt", "b.txt", ("c.txt",))
    assert (info.size, info.mtime) == (9, 3.0)
    assert keys_are_of(kb, "b.txt")
    assert kb.get_by_ids([hits[0].id]) == []
    found = kb.similarity_search("x", k=9)
    assert [d.page_content for d in found] == [d.page_content for d in hits]
    assert {d.metadata["source"] for d in found} == {"b.txt"}
    assert kb.remove("b.txt")
    assert kb.remove("c.txt")
    assert (sources(kb), kb.info().num_chunks) == ([], 0)
    assert len(embedded) == before


def test_a_file_that_changed_leaves_the_old_text_to_its_copies(kb, make):
    kb.put_document(*make("a.txt", TEXT))
    add_copy(kb, "b.txt", "a.txt")
    assert kb.put_document(*make("a.txt", "something new")) == "updated"
    assert kb.get_text("a.txt") == "something new"
    assert kb.get_text("b.txt") == TEXT
    assert keys_are_of(kb, "a.txt")
    assert keys_are_of(kb, "b.txt")


def test_a_copy_that_changed_becomes_a_document_of_its_own(kb, make):
    kb.put_document(*make("a.txt", TEXT))
    add_copy(kb, "b.txt", "a.txt")
    assert kb.put_document(*make("b.txt", "something new")) == "updated"
    assert (kb.get_text("a.txt"), kb.get_text("b.txt")) == (TEXT, "something new")
    assert kb.get_document("a.txt").copies == ()


def test_a_document_that_becomes_a_copy_leaves_nothing_behind(kb, make):
    kb.put_document(*make("a.txt", TEXT))
    kb.put_document(*make("b.txt", "old"))
    kb.record_failure(IngestFailure("b.txt", "load", "x", permanent=False))
    add_copy(kb, "b.txt", "a.txt")
    assert (sources(kb), kb.get_text("b.txt"), kb.failures()) == (["a.txt"], TEXT, [])


def test_the_same_bytes_cut_again_keep_their_copies(kb, make):
    kb.put_document(*make("a.txt", TEXT))
    add_copy(kb, "b.txt", "a.txt")
    kb.put_document(*make("a.txt", TEXT, size=10))
    assert kb.get_document("b.txt").num_chunks == 5
    assert kb.get_document("a.txt").copies == ("b.txt",)


@pytest.mark.parametrize(("of", "reason"), [("no", "not in the knowledge base"), ("a", "itself")])
def test_a_copy_of_nothing_or_of_itself_is_refused(kb, make, of, reason):
    kb.put_document(*make("a", TEXT))
    with pytest.raises(KnowledgeBaseError, match=reason):
        add_copy(kb, "a", of)
    assert kb.get_text("a") == TEXT


def test_the_same_bytes_are_found_again(kb, make):
    document, chunks = make("a.txt", TEXT)
    kb.add_texts([TEXT])
    assert kb.find_by_content(document.sha256) is None, "a text is not a file"
    kb.put_document(document, chunks)
    assert kb.find_by_content(document.sha256).source == "a.txt"
    assert kb.find_by_content(document.sha256, suffix=".txt").source == "a.txt"
    assert kb.find_by_content(document.sha256, suffix=".csv") is None
    assert kb.find_by_content("0") is None


def test_the_source_of_a_copy_filters_like_the_document_s_own(kb, make):
    kb.put_document(*make("a.txt", TEXT))
    kb.put_document(*make("other.txt", "other"))
    add_copy(kb, "b.txt", "a.txt")
    for source in ("a.txt", "b.txt", ["b.txt", "c.txt"]):
        found = kb.similarity_search("x", k=9, filter={"source": source})
        assert {d.metadata["source"] for d in found} == {"a.txt"}
    assert kb.similarity_search("x", k=9, filter={"source": "c.txt"}) == []


def test_an_archive_is_stored_with_its_members_and_removed_with_them(kb, make):
    assert put_archive(kb, make, "z.zip", {"a": "text a", "b": "text b"}) == "added"
    assert sources(kb) == ["z.zip", "z.zip#a", "z.zip#b"]
    (chunk,) = kb.get_chunks("z.zip#a")
    assert chunk.metadata["container"] == "z.zip"
    assert kb.remove("z.zip")
    assert (sources(kb), kb.info().num_chunks) == ([], 0)


def test_a_member_that_is_gone_from_the_archive_is_gone(kb, make):
    put_archive(kb, make, "z.zip", {"a": "text a", "b": "text b"})
    assert put_archive(kb, make, "z.zip", {"b": "text b", "c": "text c"}) == "updated"
    assert sources(kb) == ["z.zip", "z.zip#b", "z.zip#c"]


def test_members_of_members_go_too(kb, make):
    inner = item(kb, make, "z.zip#in.zip", "", "z.zip")
    deep = item(kb, make, "z.zip#in.zip#x", "deep", "z.zip#in.zip")
    kb.put_documents([item(kb, make, "z.zip", ""), inner, deep])
    assert len(sources(kb)) == 3
    kb.put_documents([item(kb, make, "z.zip", "")])
    assert sources(kb) == ["z.zip"]


def test_a_copy_of_an_archive_inherits_its_members(kb, make, embedded):
    put_archive(kb, make, "z.zip", {"a": "text a"})
    add_copy(kb, "y.zip", "z.zip")
    before = len(embedded)
    kb.remove("z.zip")
    assert sources(kb) == ["y.zip", "y.zip#a"]
    assert keys_are_of(kb, "y.zip#a")
    assert kb.get_document("y.zip#a").container == "y.zip"
    assert len(embedded) == before


def test_a_file_like_a_member_outlives_the_archive(kb, make):
    put_archive(kb, make, "z.zip", {"a": "text a"})
    add_copy(kb, "a.txt", "z.zip#a")
    kb.remove("z.zip")
    info = kb.get_document("a.txt")
    assert (sources(kb), info.container) == (["a.txt"], "")
    assert keys_are_of(kb, "a.txt")


def attached(kb, make, *sources):
    """Put documents of which each holds the next."""
    items, container = [], ""
    for source in sources:
        document, chunks = make(source, f"text of {source} " * 3)
        items.append(
            (dataclasses.replace(document, container=container), chunks, kb.embed_chunks(chunks))
        )
        container = source
    kb.put_documents(items)


def test_a_mail_that_becomes_what_was_attached_to_it_is_only_that(kb, make):
    attached(kb, make, "f.eml", "f.eml#in.eml", "f.eml#in.eml#doc")
    text = kb.get_text("f.eml#in.eml")
    kb.add_copy("f.eml", of="f.eml#in.eml", size=7, mtime=3.0)
    assert [info.source for info in kb.documents()] == ["f.eml", "f.eml#doc"]
    info = kb.get_document("f.eml")
    assert (kb.get_text("f.eml"), info.size, info.mtime) == (text, 7, 3.0)
    assert (info.container, info.copies, info.title) == ("", (), "f.eml")
    assert kb.get_document("f.eml#doc").container == "f.eml"
    assert kb.verify().findings == ()


@pytest.mark.parametrize("of", ["f.eml", "f.eml#in.eml", "f.eml#in.eml#doc"])
def test_what_another_file_holds_too_stays_there_when_a_mail_becomes_its_attachment(kb, make, of):
    attached(kb, make, "f.eml", "f.eml#in.eml", "f.eml#in.eml#doc")
    kb.add_copy("other", of=of, size=1, mtime=1.0)
    text = kb.get_text("f.eml#in.eml#doc")
    kb.add_copy("f.eml", of="f.eml#in.eml#doc", size=7, mtime=3.0)
    (holder,) = [info for info in kb.documents() if "f.eml" in info.copies]
    assert kb.get_text("f.eml") == kb.get_text(holder.source) == text
    assert (
        holder.source
        == {
            "f.eml": "other#in.eml#doc",
            "f.eml#in.eml": "other#doc",
            "f.eml#in.eml#doc": "other",
        }[of]
    )
    assert kb.verify().findings == ()


def test_a_file_like_a_changed_member_keeps_what_that_held(kb, make):
    attached(kb, make, "f.eml", "f.eml#in.eml", "f.eml#in.eml#doc")
    kb.add_copy("other.eml", of="f.eml#in.eml", size=1, mtime=1.0)
    mail, chunks = make("f.eml", "another mail")
    member, member_chunks = make("f.eml#in.eml", "with another attachment")
    member = dataclasses.replace(member, container="f.eml")
    kb.put_documents(
        [
            (mail, chunks, kb.embed_chunks(chunks)),
            (member, member_chunks, kb.embed_chunks(member_chunks)),
        ]
    )
    sources = [info.source for info in kb.documents()]
    assert sources == ["f.eml", "f.eml#in.eml", "other.eml", "other.eml#doc"]
    assert kb.get_document("other.eml#doc").container == "other.eml"
    assert kb.verify().findings == ()


def test_failures_of_members_are_replaced_with_the_file(kb, make):
    def failed(name):
        return IngestFailure(name, "load", "encrypted", permanent=True)

    kb.record_failure(failed("z.zip2"))
    put_archive(kb, make, "z.zip", {"a": "text"}, [failed("z.zip#b"), failed("z.zip#c")])
    put_archive(kb, make, "z.zip", {"a": "text"}, [failed("z.zip#c")])
    assert [f.source for f in kb.failures()] == ["z.zip#c", "z.zip2"]
    kb.remove("z.zip")
    assert [f.source for f in kb.failures()] == ["z.zip2"]


def test_a_file_and_its_members_are_one_transaction(kb, make, failing):
    put_archive(kb, make, "z.zip", {"a": "old"})
    good = item(kb, make, "z.zip", "new")
    bad = (good[0], good[1], np.zeros((1, 8)))
    with pytest.raises(KnowledgeBaseError, match="same source"):
        kb.put_documents([good, bad])
    with failing("before the commit"):
        put_archive(kb, make, "z.zip", {"a": "new", "b": "new"})
    assert sources(kb) == ["z.zip", "z.zip#a"]
    assert kb.get_text("z.zip#a") == "old"


def test_deleting_chunks_of_a_mail_keeps_what_holds_its_attachments(kb, make):
    kb.put_documents([item(kb, make, "m", "text"), item(kb, make, "m#a", "attached", "m")])
    kb.delete([chunk.id for chunk in kb.get_chunks("m")])
    assert sources(kb) == ["m", "m#a"]


# ---------------------------------------------------------------- vectors found again


def test_an_edited_paragraph_is_the_only_one_embedded(kb, make, embedded):
    paragraphs = [f"paragraph number {n} " for n in range(10)]
    kb.put_document(*make("a", "".join(paragraphs), size=19))
    embedded.clear()
    paragraphs[4] = "paragraph number x "
    kb.put_document(*make("a", "".join(paragraphs), size=19))
    assert embedded == ["paragraph number x "]
    vectors = [kb.embeddings.embed_query(text) for text in paragraphs]
    for chunk, vector in zip(kb.get_chunks("a"), vectors, strict=True):
        (found,) = kb.similarity_search_by_vector(vector, k=1)
        assert found.page_content == chunk.page_content


def test_vectors_kept_are_found_until_their_document_is_stored(kb, make):
    document, chunks = make("a", TEXT)
    texts = [kb.embedding_text(chunk) for chunk in chunks]
    vectors = kb.embed(texts)
    assert kb.find_vectors(texts) == [None] * len(texts)
    kb.keep_vectors(texts[:2], 3 * vectors[:2])
    found = kb.find_vectors(texts)
    np.testing.assert_allclose(np.stack(found[:2]), vectors[:2], rtol=1e-6)
    assert found[2] is None
    kb.put_document(document, chunks)
    assert all(vector is not None for vector in kb.find_vectors(texts))


def test_another_embedder_does_not_find_them(open_kb, hash_embeddings):
    open_kb().keep_vectors(["text"], np.ones((1, 8)))
    assert open_kb(embeddings=hash_embeddings("other")).find_vectors(["text"]) == [None]


# ---------------------------------------------------------------- sections


def test_a_chunk_knows_its_table_header_and_its_section(kb, make):
    document, chunks = make("a", TEXT)
    chunks[1] = dataclasses.replace(chunks[1], table_header="| a | b |", section=(0, len(TEXT)))
    kb.put_document(document, chunks)
    plain, chunk, *_ = kb.get_chunks("a")
    assert chunk.metadata["table_header"] == "| a | b |"
    assert chunk.metadata["section"] == [0, len(TEXT)]
    assert not {"table_header", "section", "container"} & set(plain.metadata)
    parent = kb.get_parent(chunk)
    assert (parent.page_content, parent.metadata["start"]) == (TEXT, 0)
    assert parent.metadata["end"] == len(TEXT)
    assert kb.get_parent(plain) == plain
    kb.put_document(*make("a", "another text altogether, and longer than the one before"))
    with pytest.raises(KnowledgeBaseError, match="has changed since"):
        kb.get_parent(chunk)
