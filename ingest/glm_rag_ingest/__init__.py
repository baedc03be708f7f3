"""Bulk ingestion: files in, knowledge base out."""
