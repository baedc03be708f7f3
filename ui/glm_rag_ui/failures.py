"""Errors as one friendly line in the reader's language, with what to do behind it. Pure."""

from __future__ import annotations

from glm_rag import errors
from glm_rag_ui import render
from glm_rag_ui.i18n import Translate

# The first that fits names the headline; the library's own message says what to do.
_HEADLINES: tuple[tuple[type[Exception], str], ...] = (
    (errors.ModelNotFoundError, "error_model_missing"),
    (errors.ModelError, "error_model"),
    (errors.ContextWindowError, "error_window"),
    (errors.MissingDependencyError, "error_dependency"),
    (errors.ConfigError, "error_config"),
    (errors.KnowledgeBaseBusyError, "kb_busy"),
    (errors.KnowledgeBaseError, "error_kb"),
    (errors.DocumentError, "error_document"),
    (errors.GlmRagError, "error"),
)


def notice(error: Exception, t: Translate, *, kept: bool = False, title: str = "") -> str:
    """The HTML of an error.

    Args:
        kept: says that the part of the answer above it stays.
        title: key of the words above it; default: by the kind of the error.
    """
    found = next((key for kind, key in _HEADLINES if isinstance(error, kind)), "")
    said = t(title or found or "error")
    unforeseen = t("error_internal", kind=type(error).__name__)
    detail = " ".join(str(error).split()) if found else unforeseen
    if kept:
        said = f"{said} {t('error_kept')}"
    return render.notice("error", said, detail)
