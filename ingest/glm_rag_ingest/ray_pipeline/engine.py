"""The Ray cluster as an engine: its nodes checked, tasks and actors made to measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from glm_rag.errors import GlmRagError
from glm_rag.settings import Settings
from glm_rag_ingest.engines import Deliver
from glm_rag_ingest.loaders.base import Loaded
from glm_rag_ingest.plan import Step
from glm_rag_ingest.ray_pipeline import probe
from glm_rag_ingest.ray_pipeline.connection import connected
from glm_rag_ingest.ray_pipeline.embedders import RayEmbedders
from glm_rag_ingest.ray_pipeline.readers import RayReaders
from glm_rag_ingest.ray_pipeline.remote import Contents, EmbeddingActor, read_file
from glm_rag_ingest.ray_pipeline.setup import Setup, not_portable

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

    from glm_rag.knowledge.base import KnowledgeBase

# An embedder and a reader share a processor: reading waits for embedding most of the time.
_EMBEDDER_CPUS = 0.75
_READER_CPUS = 0.25
_PROBE_SECONDS = 60.0


@contextmanager
def ray_engine(
    settings: Settings,
    embeddings: Embeddings,
    *,
    workers: int | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[RayEngine]:
    """The cluster that `settings.ingestion.address` names, for one pass.

    Args:
        embeddings: of the knowledge base.
        workers: files read at once; default: the setting, else one for each processor.
        on_wait: told what the run waits for.

    Raises:
        MissingDependencyError, ConfigError: see `connection.connected`.
        GlmRagError: no such cluster, or its nodes have another glm-rag.
    """
    with connected(settings.ingestion.address) as ray:
        setup = Setup.of(settings, embeddings)
        check_nodes(ray, setup)
        yield RayEngine(ray, setup, workers, on_wait)


class RayEngine:
    """Makes readers and embedders on a connected cluster; see `glm_rag_ingest.engines.Engine`."""

    def __init__(
        self,
        ray: Any,
        setup: Setup,
        workers: int | None,
        on_wait: Callable[[str], None] | None,
    ) -> None:
        self._ray = ray
        self._setup = setup
        self._workers = workers or setup.limits.workers
        self._on_wait = on_wait
        try:
            self._reference = ray.put(setup)
        # What pickling raises is anybody's choice.
        except Exception as error:
            raise not_portable(setup.embedder, error) from error

    def readers(
        self, steps: Sequence[Step], stored: Callable[[str], Loaded], deliver: Deliver
    ) -> RayReaders:
        """A task for each file."""
        ray, key, setup = self._ray, self._setup.key, [self._reference]
        # Counted and tried again here: Ray would read a file that kills its worker for ever.
        task = ray.remote(num_cpus=_READER_CPUS, max_retries=0)(read_file)

        def submit(step: Step, kept: Loaded | None, contents: Contents | None) -> Any:
            return task.remote(key, setup, step, kept, contents)

        def cancel(reference: Any) -> None:
            with suppress(ray.exceptions.RayError):
                ray.cancel(reference, force=True)

        most = self._workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        return RayReaders(steps, deliver, submit, cancel, stored, most_tasks=most)

    def embedder(self, kb: KnowledgeBase, deliver: Deliver) -> RayEmbedders:
        """An actor for each processor, or each GPU if the embedder uses one."""
        ray, setup = self._ray, [self._reference]
        num_gpus = int(self._setup.may_use_gpu and ray.cluster_resources().get("GPU", 0) >= 1)
        options = {"num_cpus": self._embedder_cpus(), "num_gpus": num_gpus, "max_restarts": 0}
        actor = ray.remote(**options)(EmbeddingActor)

        def hire() -> Any:
            return actor.remote(setup)

        def wanted() -> int:
            name = "GPU" if num_gpus else "CPU"
            places = max(1, sum(int(node.get(name, 0)) for node in self._nodes()))
            return min(places, self._setup.limits.embedders or places)

        return RayEmbedders(deliver, hire, ray.kill, wanted, self._on_wait)

    def _embedder_cpus(self) -> float:
        """Less on a cluster none of whose nodes has a whole processor."""
        has_whole = any(node.get("CPU", 0) >= 1 for node in self._nodes())
        return _EMBEDDER_CPUS if has_whole else _READER_CPUS

    def _nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]


def check_nodes(ray: Any, setup: Setup) -> None:
    """Make sure that every node would read documents as this machine does.

    Raises:
        GlmRagError: one has not, or another glm-rag, or other optional packages; it is named.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.cloudpickle.register_pickle_by_value(probe)
    try:
        ask = ray.remote(num_cpus=0)(probe.versions)
        asked = {
            ask.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(): f"node {node['NodeManagerAddress']} of the Ray cluster"
            for node in ray.nodes()
            if node["Alive"]
        }
    finally:
        ray.cloudpickle.unregister_pickle_by_value(probe)
    done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_PROBE_SECONDS)
    for reference in done:
        try:
            found = ray.get(reference)
        except ray.exceptions.RayError as error:
            line = " ".join(str(error).split())[:200]
            raise GlmRagError(f"{asked[reference]} cannot be used: {line}") from error
        _compare(found, setup, asked[reference])


def _compare(found: dict[str, str], setup: Setup, node: str) -> None:
    if not found:
        raise GlmRagError(
            f"{node} has no glm-rag: install glm-rag {setup.version} with its extras there"
        )
    if found["version"] != setup.version:
        raise GlmRagError(
            f"{node} has glm-rag {found['version']}, this machine {setup.version}: install the "
            "same version everywhere"
        )
    if found["loaders"] != setup.loaders:
        raise GlmRagError(
            f"{node} would read some documents otherwise: install the same extras, OCR too, "
            "everywhere"
        )
