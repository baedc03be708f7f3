"""Files that came with a question, on their way into the knowledge base it is asked of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from glm_rag.settings import Settings
from glm_rag.types import IngestReport
from glm_rag_ui import runs, uploads
from glm_rag_ui.runs import Batch, Run


@dataclass(frozen=True, slots=True)
class Intake:
    """A batch of the server's own run: it goes on, whoever stops looking at it.

    Attributes:
        names: of the files, as the visitor calls them.
    """

    names: tuple[str, ...]
    batch: Batch
    run: Run

    @property
    def report(self) -> IngestReport | None:
        """What became of the files; None before that is known."""
        return self.run.report_of(self.batch)

    def wait(self, seconds: float) -> bool:
        """Wait for the files at most so long; whether nothing more will happen to them."""
        return self.run.wait_for(self.batch, seconds)

    def is_whole(self) -> bool:
        """After the wait: whether all files were looked at. False if somebody stopped that.

        Raises:
            Exception: what broke the run off.
        """
        if (error := self.run.error_of(self.batch)) is not None:
            raise error
        report = self.report
        return report is not None and not report.interrupted

    def stop(self) -> None:
        """End after the passages at hand, unless others wait for the same run."""
        if len(self.run.batches) == 1:
            self.run.stop()


def begin(settings: Settings, kb: str, files: Sequence[uploads.Upload]) -> Intake:
    """Keep files in the data folder and have them read into the knowledge base `kb`.

    Raises:
        ConfigError: the name of the knowledge base could leave the data folder.
        OSError: they cannot be kept.
    """
    target = uploads.folder(settings.home, kb)
    batch = Batch(settings, tuple(uploads.save(file, target) for file in uploads.distinct(files)))
    return Intake(tuple(file.name for file in files), batch, runs.SHARED.add(kb, batch))
