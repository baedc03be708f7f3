"""Whatever is damaged is found and named, with what mends it; rebuilding mends what it says."""

import dataclasses
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from glm_rag.cli.main import app
from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge.vectors.compaction import compact
from glm_rag.knowledge.vectors.kinds import IndexLimits

TEXT = "Parental leave is sixteen weeks. 育儿假为十六周。 The end."


@pytest.fixture
def filled(kb, make):
    document, chunks = make("a.txt", TEXT)
    chunks[1] = dataclasses.replace(chunks[1], headings=("Rules",), section=(0, 30))
    kb.put_document(document, chunks)
    kb.put_document(*make("b.txt", "another document"))
    kb.put_document(dataclasses.replace(make("z", "")[0], sha256="z"), [])
    member, chunks = make("z#m", "inside an archive")
    kb.put_document(dataclasses.replace(member, container="z"), chunks)
    kb.add_copy("c.txt", of="b.txt", size=1, mtime=2.0)
    kb.add_texts(["a text of no file", "!?"], [{"source": "elsewhere"}, {}])
    kb._index.rebuild()
    return kb


def damage(kb, *statements):
    connection = kb._database._connection
    connection.execute("PRAGMA foreign_keys = OFF")
    for statement in statements:
        connection.execute(statement)
    connection.execute("PRAGMA foreign_keys = ON")


def findings(kb):
    return {(f.check, f.mend.split(" kb ")[0].split(",")[0]) for f in kb.verify().findings}


def test_a_sound_knowledge_base_has_no_findings(filled):
    report = filled.verify()
    assert report.findings == ()
    assert (report.num_documents, report.num_chunks, report.num_findings) == (6, 7, 0)


REBUILD = "rebuild"
EMBED = "--embed"
REMOVE = "remove"
DAMAGES = {
    "a chunk moved": ("UPDATE chunks SET start_offset = 1 WHERE id = 1", "chunk", REMOVE),
    "its text changed": ("UPDATE chunks SET text = 'x' WHERE id = 1", "chunk", REMOVE),
    "its hash changed": ("UPDATE chunks SET content_hash = 'x' WHERE id = 1", "chunk", REMOVE),
    "its id changed": ("UPDATE chunks SET key = 'x' WHERE id = 1", "chunk", REMOVE),
    "its headings": ("UPDATE chunks SET headings = '[' WHERE id = 2", "chunk", REMOVE),
    "its section": ("UPDATE chunks SET section_end = 99 WHERE id = 2", "chunk", REMOVE),
    "the text of a document": (
        "UPDATE documents SET text = text || 'x' WHERE source = 'a.txt'",
        "document",
        REMOVE,
    ),
    "pages": ("UPDATE documents SET pages = '[[1, 0, 999]]' WHERE id = 1", "document", REMOVE),
    "an orphan member": ("DELETE FROM documents WHERE source = 'z'", "document", REMOVE),
    "an archive inside itself": (
        "UPDATE documents SET container = 'z' WHERE source = 'z'",
        "document",
        REMOVE,
    ),
    "a copy of itself": ("UPDATE copies SET source = 'a.txt'", "document", REMOVE),
    "no vector": ("DELETE FROM vectors WHERE id = 1", "vector", EMBED),
    "half a vector": ("UPDATE vectors SET vector = x'0000803f' WHERE id = 1", "vector", EMBED),
    "a vector of length 2": (
        f"UPDATE vectors SET vector = x'00000040{'00' * 28}' WHERE id = 1",
        "vector",
        EMBED,
    ),
    "a vector that is a text": ("UPDATE vectors SET vector = 'x' WHERE id = 1", "vector", EMBED),
    "an offset that is a text": (
        "UPDATE chunks SET start_offset = 'x' WHERE id = 1",
        "chunk",
        "restore",
    ),
    "not a number": (
        f"UPDATE vectors SET vector = x'0000c07f{'00' * 28}' WHERE id = 1",
        "vector",
        EMBED,
    ),
    "its terms": ("UPDATE chunks SET terms = x'00' WHERE id = 1", "keywords", REBUILD),
    "its number of terms": ("UPDATE chunks SET num_terms = 0 WHERE id = 1", "keywords", REBUILD),
    "terms in excess": (
        "INSERT INTO chunk_terms (rowid, terms) VALUES (99, 'parental')",
        "keywords",
        REBUILD,
    ),
    "terms in another chunk": (
        "INSERT INTO chunk_terms (rowid, terms) VALUES (1, 'extra')",
        "keywords",
        REBUILD,
    ),
    "the keyword index emptied": (
        "INSERT INTO chunk_terms (chunk_terms) VALUES ('delete-all')",
        "keywords",
        REBUILD,
    ),
    "the keyword index damaged": (
        "UPDATE chunk_terms_data SET block = x'ffff' WHERE id > 10",
        "keywords",
        REBUILD,
    ),
    "totals": ("UPDATE totals SET num_terms = num_terms + 1", "totals", REBUILD),
    "numbers given": ("UPDATE sqlite_sequence SET seq = 1", "totals", REBUILD),
    "no numbers given": ("DELETE FROM sqlite_sequence", "totals", REBUILD),
    "the counter of changes": ("DELETE FROM meta WHERE key = 'change'", "meta", REBUILD),
    "a counter that is a text": (
        "UPDATE meta SET value = 'x' WHERE key = 'change'",
        "meta",
        REBUILD,
    ),
    "the embedder": ("DELETE FROM meta WHERE key = 'embeddings'", "meta", EMBED),
    "the length of vectors": ("DELETE FROM meta WHERE key = 'dimension'", "meta", EMBED),
    "a length that is a text": (
        "UPDATE meta SET value = 'x' WHERE key = 'dimension'",
        "meta",
        EMBED,
    ),
    "warnings": ("UPDATE documents SET warnings = '{' WHERE id = 1", "document", REMOVE),
    "a size that is a text": ("UPDATE documents SET size = 'x' WHERE id = 1", "document", REMOVE),
    "metadata": ("UPDATE chunks SET extra = '{' WHERE extra IS NOT NULL", "chunk", REMOVE),
    "metadata that SQLite cannot read": (
        """UPDATE chunks SET extra = '{"a": NaN}' WHERE extra IS NOT NULL""",
        "chunk",
        REMOVE,
    ),
    "a page that is a text": ("UPDATE chunks SET page = 'x' WHERE id = 1", "chunk", REMOVE),
    "a chunk's language": ("UPDATE chunks SET language = 'xx' WHERE id = 1", "totals", REBUILD),
    "a deletion that was none": ("INSERT INTO deletions (chunk_id) VALUES (1)", "index", REBUILD),
    "a chunk of nothing": ("UPDATE vectors SET id = 77 WHERE id = 1", "database", REBUILD),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_found_and_says_what_mends_it(filled, what):
    statement, check, mend = DAMAGES[what]
    damage(filled, statement)
    found = [f for f in filled.verify().findings if f.check == check]
    assert found, f"{what} was not found"
    assert all(mend in finding.mend for finding in found)
    assert all("\n" not in finding.problem for finding in found)


@pytest.mark.parametrize(
    "what", [name for name, found in DAMAGES.items() if found[2] in {REBUILD, EMBED}]
)
def test_what_rebuild_is_said_to_mend_it_mends(filled, what):
    statement, _, mend = DAMAGES[what]
    before = [d.id for d in filled.similarity_search("x", k=99)]
    damage(filled, statement)
    filled.rebuild(embed=mend == EMBED or what == "a chunk of nothing")
    assert filled.verify().findings == ()
    assert [d.id for d in filled.similarity_search("x", k=99)] == before
    found = filled.candidates(np.ones(8), ["rules"], limit=1).candidates
    assert any(candidate.term_counts == {"rules": 1} for candidate in found)


def test_an_archive_inside_itself_can_be_removed(filled):
    damage(filled, "UPDATE documents SET container = 'z#m' WHERE source = 'z'")
    assert findings(filled) == {("document", "glm-rag")}
    assert filled.remove("z")
    assert filled.verify().findings == ()


@pytest.mark.parametrize(
    ("damaged", "named"),
    [("b.txt", ["b.txt", "c.txt"]), ("z#m", ["z"])],
    ids=["a document with copies", "a member"],
)
def test_removing_what_verify_names_removes_the_damage(filled, damaged, named):
    """A copy would take over the damaged text, and a member would not come back."""
    text = "UPDATE chunks SET text = 'x' WHERE document_id = "
    damage(filled, f"{text} (SELECT id FROM documents WHERE source = '{damaged}')")
    (mend,) = {finding.mend for finding in filled.verify().findings if finding.check == "chunk"}
    sources = mend.split('"')[1::2]
    assert sources == named
    for source in sources:
        assert filled.remove(source)
    assert filled.verify().findings == ()


@pytest.mark.parametrize("kind", ["flipped", "short", "empty", "gone"])
def test_a_damaged_snapshot_is_found_and_rebuilt(filled, kind):
    for language in ("en", "zh"):
        compact(filled.path, language, IndexLimits(min_changes=1))
    assert findings(filled) == set()
    (file, *_) = (filled.path / "index").glob("*.faiss")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink()
    if kind != "gone":
        file.write_bytes({"flipped": data, "short": data[:-9], "empty": b""}[kind])
    assert findings(filled) == {("index", "glm-rag")}
    filled.rebuild()
    assert filled.verify().findings == ()


def test_a_bit_of_a_vector_that_a_snapshot_holds_is_noticed(filled):
    for language in ("en", "zh"):
        compact(filled.path, language, IndexLimits(min_changes=1))
    (vector,) = filled._database.rows("SELECT vector FROM vectors WHERE id = 1")[0]
    data = bytearray(vector)
    data[3] ^= 0x80  # the sign of a number: the length stays
    damage(filled, f"UPDATE vectors SET vector = x'{data.hex()}' WHERE id = 1")
    assert findings(filled) == {("vector", "glm-rag")}
    assert [f.source for f in filled.verify().findings] == ["a.txt"]
    filled.rebuild(embed=True)
    assert filled.verify().findings == ()
    assert filled._database.rows("SELECT count(*) FROM vectors WHERE vector = ?", (vector,))[0][0]


def test_terms_that_a_search_does_not_find_are_noticed(kb, make):
    text = "".join(f"word{number} " for number in range(3000))
    kb.put_document(*make("a", text, size=500))
    assert kb.verify().findings == ()
    damage(kb, "DELETE FROM chunk_terms_idx WHERE pgno = (SELECT max(pgno) FROM chunk_terms_idx)")
    assert findings(kb) == {("keywords", "glm-rag")}
    kb.rebuild()
    assert kb.verify().findings == ()


def test_many_findings_are_counted_and_the_first_thousand_shown(kb, make):
    kb.put_document(*make("a", "x y " * 700, size=2))
    damage(kb, "UPDATE chunks SET content_hash = ''")
    report = kb.verify()
    assert (report.num_findings, len(report.findings)) == (1400, 1000)


def test_progress_counts_every_chunk(filled):
    seen = []
    filled.verify(on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (7, 7)


# ---------------------------------------------------------------- another embedder


def test_another_embedder_takes_over_and_all_chunks_are_kept(filled, open_kb, hash_embeddings):
    keys = {row[0] for row in filled._database.rows("SELECT key FROM chunks")}
    reader = open_kb()
    assert len(reader.similarity_search("x", k=99)) == 7
    filled.rebuild(embeddings=hash_embeddings("other", dimension=4))
    assert filled.verify().findings == ()
    assert (filled.info().embeddings, filled.info().dimension) == ("other", 4)
    assert {row[0] for row in filled._database.rows("SELECT key FROM chunks")} == keys
    assert len(filled.similarity_search("x", k=99)) == 7
    with pytest.raises(KnowledgeBaseError, match="was built with other"):
        open_kb()
    fresh = open_kb(embeddings=hash_embeddings("other", dimension=4))
    assert fresh.similarity_search("x", k=99) == filled.similarity_search("x", k=99)
    assert filled._database.value("SELECT count(*) FROM pending_vectors") == 0


def test_a_reader_with_the_former_embedder_is_told_to_open_again(filled, open_kb, hash_embeddings):
    reader = open_kb()
    filled.rebuild(embeddings=hash_embeddings("other"))
    for search in (
        lambda: reader.similarity_search("x"),
        lambda: reader.candidates(np.ones(8), ["rules"], limit=1),
    ):
        with pytest.raises(KnowledgeBaseError, match="rebuilt with other since it was opened"):
            search()
    assert len(filled.similarity_search("x", k=99)) == 7


def test_a_reader_that_is_open_sees_the_new_vectors(filled, open_kb):
    damage(filled, "UPDATE vectors SET vector = (SELECT vector FROM vectors WHERE id = 1)")
    reader, query = open_kb(), "another document"
    assert reader.similarity_search_with_score(query, k=1)[0][1] < 0.99
    numbers = set(filled._database.rows("SELECT id FROM chunks"))
    filled.rebuild(embed=True)
    assert not numbers & set(filled._database.rows("SELECT id FROM chunks")), "given twice"
    ((found, score),) = reader.similarity_search_with_score(query, k=1)
    assert (found.page_content, round(score, 5)) == (query, 1.0)


def test_embedding_again_beside_a_writer_leaves_no_chunk_without_a_vector(
    kb, open_kb, make, hash_embeddings, monkeypatch
):
    from glm_rag.knowledge import rebuild

    other = open_kb()

    class Watched(hash_embeddings):
        def embed_documents(self, texts):
            if texts == ["said once"]:  # the vector of "said twice" is pending
                other.put_document(*make("c", "said twice"))
                other.remove("c")
            return super().embed_documents(texts)

    kb.put_document(*make("a", "said twice"))
    kb.put_document(*make("b", "said once"))
    monkeypatch.setattr(rebuild, "_BATCH", 1)
    kb.rebuild(embeddings=Watched())
    assert kb.verify().findings == ()
    assert len(kb.similarity_search("x", k=9)) == 2


def test_embedding_again_that_was_broken_off_goes_on_where_it_was(filled, hash_embeddings):
    class Breaks(hash_embeddings):
        def __init__(self, name):
            super().__init__(name)
            self.seen = []

        def embed_documents(self, texts):
            if self.seen:
                raise KeyboardInterrupt
            self.seen.extend(texts)
            return super().embed_documents(texts)

    from glm_rag.knowledge import rebuild

    other = Breaks("other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rebuild, "_BATCH", 3)
        with pytest.raises(KeyboardInterrupt):
            filled.rebuild(embeddings=other)
    assert filled.info().embeddings == "hash"
    assert filled.verify().findings == ()
    assert len(filled.similarity_search("x", k=99)) == 7
    first, other.seen = list(other.seen), []
    filled.rebuild(embeddings=other)
    assert (len(first), len(other.seen)) == (3, 4)
    assert not set(first) & set(other.seen)
    assert filled.verify().findings == ()


# ---------------------------------------------------------------- the command line


def run(*arguments):
    return CliRunner().invoke(app, ["kb", *arguments])


@pytest.fixture
def on_disk(home, make, monkeypatch, hash_embeddings):
    from glm_rag.knowledge import embedder
    from glm_rag.knowledge.base import KnowledgeBase

    monkeypatch.setattr(embedder, "embeddings_from_name", lambda name: hash_embeddings(name))
    with KnowledgeBase.open("kb", home=home, embeddings=hash_embeddings(), create=True) as kb:
        kb.put_document(*make("a.txt", TEXT))
    return home


def test_verify_says_all_is_well_or_what_to_do(on_disk, open_kb):
    done = run("verify", "kb")
    assert (done.exit_code, "all is as it should be" in done.output) == (0, True)
    assert json.loads(run("verify", "kb", "--json").stdout)["findings"] == []
    damage(open_kb(), "UPDATE totals SET num_terms = 0")
    done = run("verify", "kb")
    assert done.exit_code == 1
    assert "To mend: glm-rag kb rebuild kb" in done.output
    report = json.loads(run("verify", "kb", "--json").stdout)
    assert report["findings"][0]["check"] == "totals"
    assert run("rebuild", "kb").exit_code == 0
    assert run("verify", "kb").exit_code == 0


def test_a_rebuild_that_is_interrupted_says_how_to_go_on(on_disk, monkeypatch):
    from glm_rag.knowledge.base import KnowledgeBase

    def broken_off(self, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(KnowledgeBase, "rebuild", broken_off)
    done = run("rebuild", "kb", "--embed")
    assert done.exit_code == 130
    assert "the old state stays; run the same command to go on" in done.stderr


@pytest.fixture
def answer(tmp_path, on_disk):
    def save(**changes):
        quote = {"source": "a.txt", "start": 0, "end": 32, "quote": TEXT[:32], "chunk_id": "c"}
        file = tmp_path / "answer.json"
        file.write_text(json.dumps({"text": "So.", "citations": [{**quote, **changes}]}))
        return str(file)

    return save


def test_citations_of_other_types_are_no_saved_answer(answer):
    for changes in ({"start": "x"}, {"end": None}, {"quote": 5}, {"source": ["a.txt"]}):
        done = run("verify", "kb", "--answer", answer(**changes))
        assert "is no saved answer: make one with" in str(done.exception)


def test_a_saved_answer_s_citations_open_to_their_quotes(answer):
    done = run("verify", "kb", "--answer", answer())
    assert (done.exit_code, "1 citations checked" in done.output) == (0, True)
    for change in ({"start": 1}, {"quote": "never said"}, {"source": "gone.txt"}):
        done = run("verify", "kb", "--answer", answer(**change), "--json")
        assert done.exit_code == 1
        (finding,) = json.loads(done.stdout)["findings"]
        assert finding["check"] == "citation"


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"citations": [{"source": 1}]}'])
def test_what_is_no_saved_answer_is_refused_in_one_line(on_disk, tmp_path, content):
    file = tmp_path / "answer.json"
    file.write_text(content)
    done = run("verify", "kb", "--answer", str(file))
    assert "is no saved answer" in str(done.exception)


def test_a_citation_of_a_text_with_a_source_of_its_own_opens(kb):
    (key,) = kb.add_texts(["The canteen opens at eight."], [{"source": "menu"}])
    citation = {"source": "menu", "chunk_id": key, "start": 4, "end": 11, "quote": "canteen"}
    assert kb.verify_citations([citation]) == []
    assert len(kb.verify_citations([{**citation, "start": 5}])) == 1
