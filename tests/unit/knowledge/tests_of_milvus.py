"""Which tests of the behaviour run on Milvus in the quick run, too."""

QUICK_ON_MILVUS = frozenset()
