"""Whatever is damaged is found and named, with what mends it; rebuilding mends what it says."""

import numpy as np
import pytest
from damaged import damage, findings

from glm_rag.knowledge.vectors.compaction import compact
from glm_rag.knowledge.vectors.kinds import IndexLimits


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
