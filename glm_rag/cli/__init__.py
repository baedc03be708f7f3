"""The `glm-rag` command."""
