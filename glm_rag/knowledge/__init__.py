"""The crash-proof library: SQLite is the truth, FAISS is derived."""
