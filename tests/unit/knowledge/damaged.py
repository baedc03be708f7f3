"""A knowledge base with a little of everything, and how to damage it."""

TEXT = "Parental leave is sixteen weeks. 育儿假为十六周。 The end."


def damage(kb, *statements):
    connection = kb._database._connection
    connection.execute("PRAGMA foreign_keys = OFF")
    for statement in statements:
        connection.execute(statement)
    connection.execute("PRAGMA foreign_keys = ON")


def findings(kb):
    return {(f.check, f.mend.split(" kb ")[0].split(",")[0]) for f in kb.verify().findings}
