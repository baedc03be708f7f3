"""Nothing here can run code out of a data file."""

import ast
import pickletools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("glm_rag", "ingest/glm_rag_ingest", "ui/glm_rag_ui")
FORBIDDEN = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            names = {keyword.arg: keyword.value for keyword in node.keywords}
            yield ast.unparse(node.func), names


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_a_pickle(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        assert not FORBIDDEN & set(imported(tree)), file
        for name, keywords in calls(tree):
            # numpy's and torch's own readers unpickle when they are asked to.
            if name.endswith("np.load"):
                assert "allow_pickle" not in keywords, file
            if name == "torch.load":
                assert ast.unparse(keywords["weights_only"]) == "True", file


WRITE = """
    import sys
    from pathlib import Path
    from langchain_core.embeddings import Embeddings
    from glm_rag.knowledge import transfer
    from glm_rag.knowledge.base import KnowledgeBase
    from glm_rag.types import Chunk, ExtractedDocument

    class Fixed(Embeddings):
        name = "fixed"

        def embed_query(self, text):
            return [1.0, float(len(text))]

        def embed_documents(self, texts):
            return [self.embed_query(text) for text in texts]

    home = Path(sys.argv[1])
    text = "The canteen opens at eight."
    document = ExtractedDocument("a", "a", text, "0", 1, 0.0, "text/plain", "1")
    with KnowledgeBase.open("kb", home=home, embeddings=Fixed(), create=True) as kb:
        kb.put_document(document, [Chunk(0, len(text), text)])
        kb.add_texts(["more"], [{"key": ["value"]}])
    transfer.export("kb", home, home / "export.kb")
    transfer.import_file(home / "export.kb", home, name="again")
    assert "glm_rag.knowledge.base" in sys.modules
"""


def is_pickle(data):
    try:
        return any(opcode.name == "STOP" for opcode, _, _ in pickletools.genops(data))
    except (ValueError, IndexError, UnicodeDecodeError):
        return False


def test_no_file_of_a_data_folder_is_or_holds_a_pickle(home):
    import pickle
    import textwrap

    assert is_pickle(pickle.dumps({"a": 1}))
    command = [sys.executable, "-c", textwrap.dedent(WRITE), str(home)]
    subprocess.run(command, check=True)
    files = [file for file in home.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} >= {".sqlite", ".faiss", ".kb", ".lock"}
    for file in files:
        data = file.read_bytes()
        assert not is_pickle(data), file
        # The head of protocols 2 to 5, and the module that old ones name first.
        for head in (b"\x80\x02}", b"\x80\x03}", b"\x80\x04\x95", b"\x80\x05\x95", b"ccopy_reg"):
            assert head not in data, file
