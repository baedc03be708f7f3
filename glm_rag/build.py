"""Settings in, objects out: the only place that chooses classes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from glm_rag.errors import ConfigError, KnowledgeBaseError, MissingDependencyError
from glm_rag.settings import Settings
from glm_rag.stores import info_or_error as info_or_error
from glm_rag.stores import list_knowledge_bases as list_knowledge_bases
from glm_rag.stores import reopen_knowledge_base

if TYPE_CHECKING:
    from pathlib import Path

    from glm_rag.assistant import Assistant
    from glm_rag.chat_models import ChatGLM2
    from glm_rag.embeddings import TokenEmbeddings
    from glm_rag.knowledge.base import KnowledgeBase
    from glm_rag.remote_chat import RemoteChat
    from glm_rag.remote_model import RemoteCompletions
    from glm_rag.retrieval.rerank.base import Reranker
    from glm_rag.retrieval.retriever import HybridRetriever
    from glm_rag.templates import Templates

    LanguageModel = ChatGLM2 | RemoteChat | RemoteCompletions


def build_llm(settings: Settings, *, max_running: int | None = None) -> LanguageModel:
    """The chat model of these settings. Cheap: weights load, and servers are asked, on first use.

    Args:
        max_running: answers that the engine here decodes together; None: each runs alone. A
            server has its own say.

    Raises:
        ConfigError: `llm.backend` is openai and its settings are incomplete.
        MissingDependencyError: it is, and the extra `openai` is not installed.
    """
    if settings.llm.backend == "openai":
        return _remote_llm(settings)
    return build_local_llm(settings, max_running=max_running)


def build_local_llm(settings: Settings, *, max_running: int | None = None) -> ChatGLM2:
    """The engine here as a chat model, for what reads its cache or its probabilities.

    Raises:
        ConfigError: `llm.backend` names a server.
    """
    from glm_rag.chat_models import ChatGLM2

    if settings.llm.backend != "chatglm2":
        raise ConfigError(
            "this reads the model's own cache or probabilities, which no server gives: set "
            "llm.backend to chatglm2"
        )
    model, generation = settings.model, settings.generation
    together = {} if max_running is None else {"max_running": max_running}
    return ChatGLM2(
        model=model.name,
        home=settings.home,
        dtype=model.dtype,
        device=model.device,
        threads=model.threads,
        rope_mode=model.rope_mode,
        rope_table=model.rope_table,
        prefix_checkpoint=model.prefix_checkpoint,
        kv_cache=model.kv_cache,
        quantize=model.quantize,
        group=model.group,
        embedding_bits=model.embedding_bits,
        prefix_cache=settings.cache,
        **together,
        **{**generation.model_dump(), "stop": list(generation.stop)},
    )


def llm_name(settings: Settings) -> str:
    """What the chat model is called: in the list of models, or at its server."""
    if settings.llm.backend == "openai":
        return settings.llm.model or settings.model.name
    return settings.model.name


def _remote_llm(settings: Settings) -> RemoteChat | RemoteCompletions:
    from glm_rag.remote_server import RemoteServer

    server = RemoteServer(settings.llm, llm_name(settings))
    if settings.llm.endpoint == "completions":
        from glm_rag.remote_model import RemoteCompletions

        return RemoteCompletions(server=server, generation=settings.generation)
    try:
        from glm_rag.remote_chat import RemoteChat
    except ImportError as error:
        raise MissingDependencyError.for_extra("langchain-openai", "openai") from error
    return RemoteChat.of(server, settings.generation)


def build_embeddings(settings: Settings) -> TokenEmbeddings:
    """The embedder of these settings."""
    from glm_rag.embeddings import create_embeddings

    return create_embeddings(settings.embeddings)


def open_knowledge_base(
    settings: Settings, name: str = "default", *, create: bool = False
) -> KnowledgeBase:
    """Open a knowledge base where these settings say: in the data folder, or in Milvus.

    Raises:
        KnowledgeBaseNotFoundError: there is none of that name and `create` is false.
        KnowledgeBaseError: it is damaged or locked, or Milvus does not answer.
    """
    return reopen_knowledge_base(settings, name, build_embeddings(settings), create=create)


def open_for_questions(settings: Settings, name: str = "default") -> KnowledgeBase:
    """Open a knowledge base that holds something to ask about.

    Raises:
        KnowledgeBaseNotFoundError: there is none of that name.
        KnowledgeBaseError: it has no documents.
    """
    kb = open_knowledge_base(settings, name)
    if kb.info().num_chunks == 0:
        kb.close()
        raise KnowledgeBaseError(
            f"knowledge base {name!r} is empty: run glm-rag ingest PATH --kb {name}"
        )
    return kb


def build_retriever(settings: Settings, kb: KnowledgeBase) -> HybridRetriever:
    """The hybrid retriever over `kb`."""
    from glm_rag.retrieval.retriever import HybridRetriever

    retrieval = settings.retrieval
    return HybridRetriever(
        store=kb,
        k=retrieval.k,
        candidates=retrieval.candidates,
        filter=retrieval.filter,
        mmr=retrieval.mmr,
        multi_query=retrieval.multi_query,
        reranker=build_reranker(settings, kb),
        rerank_first=retrieval.rerank_first,
        expand=retrieval.expand,
        expand_tokens=retrieval.expand_tokens,
    )


def build_reranker(settings: Settings, kb: KnowledgeBase | None = None) -> Reranker | None:
    """What orders the first passages anew, None for nothing. Cheap: models load on first use.

    With `kb`, the model reads them in the words of that knowledge base's prompts.
    """
    from glm_rag.retrieval.rerank.factory import create_reranker

    def likelihood() -> Reranker:
        from glm_rag.passage_prompt import passage_prompt
        from glm_rag.retrieval.rerank.likelihood import LikelihoodReranker

        llm = build_local_llm(settings)
        templates = build_templates(settings, None) if kb is None else templates_for(settings, kb)
        prompt = partial(passage_prompt, llm, templates=templates)
        return LikelihoodReranker(llm.open, prompt)

    return create_reranker(settings.retrieval, likelihood)


def build_templates(settings: Settings, own: Path | None) -> Templates:
    """The words of prompts: built in < `prompt.templates` < a knowledge base's own file.

    Raises:
        ConfigError: a file is missing or cannot be used; the key is named.
    """
    from glm_rag.templates import TEMPLATES, read_templates

    templates = TEMPLATES
    for file in (settings.prompt.templates, own):
        if file is not None:
            templates = read_templates(file, templates)
    return templates


def templates_for(settings: Settings, kb: KnowledgeBase) -> Templates:
    """The words of the prompts about `kb`; errors as in `build_templates`."""
    from glm_rag.templates import PROMPT_FILE

    own = kb.path / PROMPT_FILE
    return build_templates(settings, own if own.is_file() else None)


def build_assistant(
    settings: Settings, kb: KnowledgeBase, *, max_running: int | None = None
) -> Assistant:
    """An assistant that answers from `kb`; `max_running` as for `build_llm`."""
    from glm_rag.assistant import Assistant

    return Assistant(
        build_retriever(settings, kb),
        build_llm(settings, max_running=max_running),
        packing=settings.packing,
        retrieval=settings.retrieval,
        templates=templates_for(settings, kb),
    )
