"""The HTTP API of glm-rag: OpenAI-compatible, with knowledge bases."""
