"""Whatever is put, copied and removed in any order, every file has its text and what it holds."""

import dataclasses
import random

import pytest

FILES = ("a", "b", "c", "d")
# Of each kind of file: its text, and what it holds by the path inside.
CONTENTS = (
    ("plain text, nothing inside", {}),
    ("an archive of one", {"#m": "a member"}),
    ("an archive of two", {"#m": "a member", "#n": "another member"}),
    ("an archive with another member", {"#m": "a changed member"}),
    ("a mail in a mail", {"#m": "a mail", "#m#x": "its attachment"}),
    ("a mail in a mail in a mail", {"#m": "mail", "#m#x": "mail two", "#m#x#y": "attached"}),
)


class Model:
    """A knowledge base beside what must be in it: text and contents of each file."""

    def __init__(self, kb, make, seed):
        self.kb, self.make, self.chance = kb, make, random.Random(seed)
        self.files = {}

    def step(self):
        act = self.chance.choice([self.put, self.put, self.copy, self.copy_member, self.remove])
        act(self.chance.choice(FILES))

    def put(self, file):
        text, inside = self.chance.choice(CONTENTS)
        items = []
        for path, content in {"": text, **inside}.items():
            document, chunks = self.make(file + path, content)
            container = (file + path).rpartition("#")[0]
            document = dataclasses.replace(document, container=container)
            items.append((document, chunks, self.kb.embed_chunks(chunks)))
        self.kb.put_documents(items)
        self.files[file] = (text, inside)

    def copy(self, file):
        others = sorted(set(self.files) - {file})
        if not others:
            return
        other = self.chance.choice(others)
        info = self.kb.get_document(file)
        if info is not None and other in info.copies:
            return  # they are copies of each other already
        self.kb.add_copy(file, of=other, size=1, mtime=1.0)
        self.files[file] = self.files[other]

    def copy_member(self, file):
        members = [info.source for info in self.kb.documents() if "#" in info.source]
        if members:
            member = self.chance.choice(members)
            content = (self.kb.get_text(member), self.inside(member))
            self.kb.add_copy(file, of=member, size=1, mtime=1.0)
            self.files[file] = content

    def remove(self, file):
        assert self.kb.remove(file) == (file in self.files)
        self.files.pop(file, None)

    def inside(self, source):
        """What the knowledge base has inside a file, by path."""
        (own,) = [i.source for i in self.kb.documents() if source in (i.source, *i.copies)]
        return {
            info.source.removeprefix(own): self.kb.get_text(info.source)
            for info in self.kb.documents()
            if info.source.startswith(f"{own}#")
        }

    def check(self):
        known = {source for source in self.kb.known_sources() if "#" not in source}
        assert known == set(self.files)
        for file, (text, inside) in self.files.items():
            assert self.kb.get_text(file) == text
            assert self.inside(file) == inside
        assert self.kb.verify().findings == ()


@pytest.mark.parametrize("seed", range(12))
def test_any_sequence_leaves_every_file_with_all_it_holds(kb, make, seed):
    model = Model(kb, make, seed)
    for _ in range(30):
        model.step()
        model.check()
