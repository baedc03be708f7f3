"""The errors glm-rag raises, sorted by what the caller does next.

Every message is one line that says what to do. The command line prints it and exits with
code 1; it never shows a traceback for one of these.
"""


class GlmRagError(Exception):
    """Base of all errors that glm-rag raises on purpose."""


class ConfigError(GlmRagError, ValueError):
    """A setting or argument is wrong: correct it and call again."""


class MissingDependencyError(GlmRagError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""

    @classmethod
    def for_extra(cls, package: str, extra: str) -> "MissingDependencyError":
        """Say which extra of glm-rag installs `package`."""
        return cls(f'{package} is not installed: run pip install "glm-rag[{extra}]"')


class ModelError(GlmRagError):
    """A model is unknown, absent, incomplete or does not match its own config."""


class ModelNotFoundError(ModelError):
    """The model is not on this machine: pull it or name a folder."""


class CheckpointError(ModelError):
    """A checkpoint is truncated, misses tensors or has wrong shapes: fetch it again."""


class GenerationError(GlmRagError):
    """The model produced NaN or infinite logits."""


class ContextWindowError(GlmRagError, ValueError):
    """Prompt plus reserved answer do not fit into the model's context window."""


class KnowledgeBaseError(GlmRagError):
    """A knowledge base is missing, locked, of another embedder, or damaged."""


class KnowledgeBaseNotFoundError(KnowledgeBaseError):
    """No knowledge base of that name exists: ingest something into it first."""


class StoreUnavailableError(KnowledgeBaseError):
    """The server that holds the knowledge bases does not answer: try again when it does."""


class KnowledgeBaseBusyError(KnowledgeBaseError):
    """Another process is writing into the knowledge base: try again when it is done."""


class DocumentError(GlmRagError):
    """One document cannot be read; ingestion records it and goes on.

    Attributes:
        reason: one of `empty | encrypted | corrupt | unsupported | unreadable | no_text |
            garbled | timeout | crash`.
        permanent: trying again without changing the file cannot help.
    """

    def __init__(self, message: str, *, reason: str = "corrupt", permanent: bool = True) -> None:
        super().__init__(message)
        self.reason = reason
        self.permanent = permanent
