"""The parts of the vector index: kinds of FAISS indexes, snapshot files, tails, compaction."""
