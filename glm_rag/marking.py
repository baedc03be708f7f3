"""Marks of a streamed answer: what supports each sentence, told as soon as the next one begins.

A sentence is judged once, with the words of the passages prepared once, so that marks cost
little and never change. Where a text is cut into pieces makes no difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from glm_rag.citations import Aligner
from glm_rag.grounding import may_become_refusal
from glm_rag.text import sentence_spans
from glm_rag.types import Citation, Passage, Unsupported
from glm_rag.unsupported import Doubter


class Marker:
    """Takes an answer piece by piece; `citations` and `unsupported` hold the marks so far.

    Joined, the marks are those of `align` and `find_unsupported` over the whole text. An answer
    that is, or may still become, a refusal has none yet.

    Args:
        passages: what the model reads.
        question: as it was searched for.
    """

    def __init__(self, passages: Sequence[Passage], question: str) -> None:
        self._passages = passages
        self._question = question
        self._begin_again()

    def _begin_again(self) -> None:
        self.text = ""
        self.citations: list[Citation] = []
        self.unsupported: list[Unsupported] = []
        self._judged = 0  # where the last judged sentence ends
        self._num_judged = 0

    @cached_property
    def _aligner(self) -> Aligner:
        return Aligner(self._passages, question=self._question)

    @cached_property
    def _doubter(self) -> Doubter:
        return Doubter(self._passages, question=self._question)

    def push(self, piece: str) -> None:
        """Take the next piece, and judge every sentence behind which another one begins."""
        self.text += piece
        complete = list(self._open_spans())[:-1]
        if complete and self._is_no_refusal():
            self._judge(complete, alone=False)

    def _is_no_refusal(self) -> bool:
        # What has once begun in other words stays none: the beginning is not looked at again.
        return self._num_judged > 0 or not may_become_refusal(self.text)

    def finish(self, text: str) -> None:
        """Judge what is left of the answer, which is `text`."""
        if text != self.text:
            self._begin_again()
            self.text = text
        spans = list(self._open_spans())
        self._judge(spans, alone=self._num_judged + len(spans) == 1)

    def _open_spans(self) -> Iterator[tuple[int, int]]:
        """Sentences behind the judged ones; the last one may go on."""
        for start, end in sentence_spans(self.text[self._judged :]):
            yield self._judged + start, self._judged + end

    def _judge(self, spans: Sequence[tuple[int, int]], *, alone: bool) -> None:
        for span in spans:
            citation = self._aligner.cite(self.text, span, alone=alone)
            if citation is not None:
                self.citations.append(citation)
            doubts = self._doubter.doubts(self.text, span, cited=citation is not None)
            self.unsupported += doubts
            self._judged = span[1]
            self._num_judged += 1
