"""A process that compacts, and kills itself at a given step; run by the fault tests.

    python snapshot_compactor.py FOLDER STEP LIMIT

STEP: `written` (the temporary file is complete), `half` (it is not), `renamed` (not committed),
`committed` (the old file not swept), `never`. LIMIT: most bytes of a file, 0 for no limit.
"""

import os
import resource
import signal
import sys
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "knowledge"))
from vector_store import VectorStore

from glm_rag.knowledge.vectors import snapshots


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(step):
    write_file, register, sweep = snapshots.write_file, snapshots.register, snapshots.sweep

    def written(folder, index):
        found = write_file(folder, index)
        if step == "half":
            os.truncate(found[0], found[2] // 2)
        if step in {"half", "written"}:
            die()
        return found

    def renamed(*args):
        path = register(*args)
        if step == "renamed":
            die()
        return path

    def committed(*args):
        if step == "committed":
            die()
        sweep(*args)

    snapshots.write_file, snapshots.register, snapshots.sweep = written, renamed, committed


def main():
    folder, step, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    die_at(step)
    with closing(VectorStore(folder, seed=1)) as store:
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        store.save()


if __name__ == "__main__":
    main()
