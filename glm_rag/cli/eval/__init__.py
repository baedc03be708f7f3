"""`glm-rag eval`: how good retrieval, answers and silence are on the user's own questions."""
