"""The ChatGLM2 engine: token ids in, token ids out."""
