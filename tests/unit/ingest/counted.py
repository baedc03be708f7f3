"""A report as five numbers, and the titles of a knowledge base."""

from __future__ import annotations


def counts(report):
    return (
        report.num_added,
        report.num_updated,
        report.num_skipped,
        report.num_deleted,
        len(report.failures),
    )


def titles(kb):
    return [document.title for document in kb.documents()]
