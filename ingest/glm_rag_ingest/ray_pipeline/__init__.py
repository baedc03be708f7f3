"""Reading and embedding on a Ray cluster: the engine of `ingestion.engine: ray`.

    this process                                   nodes of the cluster
    plan ─► steps ─► readers.py  ── a task a file ──► remote.py: child process, cutting
                         │ bytes, where the node has not the file
    Conveyor ◄───────────┘
        └─► batches ─► embedders.py ── an actor each ─► remote.py: the embedder
    KnowledgeBase, one transaction per file

Ray's tasks and actors, not Ray Data: between reading and embedding the knowledge base is asked
which texts have vectors and which files are copies, which only this process can; and a file that
kills its worker again and again has to become a failure of its own, where Ray Data would try it
for ever or give up the whole job.
"""
