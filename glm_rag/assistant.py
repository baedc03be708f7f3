"""From a question to a cited answer: retrieve, judge, pack, prompt, generate, cite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from langchain_core.runnables import RunnableBinding

from glm_rag.answer_run import AnswerRun
from glm_rag.conversation import history_turns, recent_turns
from glm_rag.counting import TokenCounter, context_window
from glm_rag.engine.loop_guard import TextLoopGuard
from glm_rag.errors import ConfigError, ContextWindowError
from glm_rag.grounding import answered_turns, judge
from glm_rag.marking import Marker
from glm_rag.messages import to_messages
from glm_rag.packing import pack
from glm_rag.rewriting import MAX_TOKENS, accepted, asks_model, by_rule, greedy_options, request
from glm_rag.settings import PackingSettings, RetrievalSettings
from glm_rag.templates import TEMPLATES, Templates
from glm_rag.text import detect_language
from glm_rag.types import Answer, AnswerDelta

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.messages import BaseMessage
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.runnables import Runnable

    from glm_rag.conversation import History


class Assistant:
    """Answers questions from what a retriever finds, in the question's language, with citations.

    Args:
        retriever: any LangChain retriever. `score` and `evidence` in the metadata of its
            documents decide how many passages are read and whether there is an answer at all.
        llm: any LangChain chat model; tokens are counted by its own tokenizer if it has one.
        packing: how the context window is spent.
        retrieval: only `abstain`, `threshold` and `rewrite` are read here; the retriever was built
            with the rest.
        templates: the words of the prompt by language, if not those built in.
    """

    def __init__(
        self,
        retriever: BaseRetriever | Runnable[str, list[Document]],
        llm: Runnable[Any, Any],
        *,
        packing: PackingSettings | None = None,
        retrieval: RetrievalSettings | None = None,
        templates: Templates = TEMPLATES,
    ) -> None:
        self.retriever = retriever
        self.llm = llm
        self.packing = packing or PackingSettings()
        self.retrieval = retrieval or RetrievalSettings()
        self.templates = templates

    def ask(self, question: str, *, history: History | None = None) -> Answer:
        """Answer one question; arguments and errors as in `stream`."""
        *_, last = self.stream(question, history=history)
        return _answer(last)

    def stream(self, question: str, *, history: History | None = None) -> Iterator[AnswerDelta]:
        """Answer one question piece by piece; closing the iterator stops the model.

        Args:
            question: in Chinese or English.
            history: the previous `Answer`, (role, text) pairs, turns or messages. After an
                `Answer` the prompt goes on where it ended, passages included, and passages that
                it shows are not repeated. The model reads no declined questions. Old turns lose
                their passages or are left out where they would take more than their share of
                the window.

        Yields:
            Pieces of text, with the marks of the sentences that they completed; the last delta
            has no text and carries the `Answer`. An answer that repeats itself is ended
            (`finish_reason` repetition). What was streamed cannot be taken back, but
            `Answer.text` holds the repeated part once.

        Raises:
            ConfigError: the question is empty or the history is of no known form.
            ContextWindowError: the question leaves no room for passages and an answer.
        """
        run = self._begin(question, history)
        if rewriting := self._rewriting(run):
            with run.timed("rewrite"):
                reply = self.llm.invoke(rewriting, **greedy_options(self.llm))
            run.searched = accepted(reply, run.question, run.searched)
        with run.timed("retrieve"):
            documents = self.retriever.invoke(run.searched.text)
        prompt = self._prepare(run, documents)
        if prompt:
            with run.timed("generate"), closing(_generator(self.llm.stream(prompt))) as chunks:
                for chunk in chunks:
                    if delta := run.add(chunk):
                        yield delta
                    if run.loops:
                        break
        if rest := run.complete():
            yield AnswerDelta(rest)
        yield run.last_delta()

    async def aask(self, question: str, *, history: History | None = None) -> Answer:
        """`ask` for asyncio; cancelling it stops the model."""
        async with aclosing(self._astream(question, history)) as deltas:
            *_, last = [delta async for delta in deltas]
        return _answer(last)

    def astream(
        self, question: str, *, history: History | None = None
    ) -> AsyncIterator[AnswerDelta]:
        """`stream` for asyncio; closing or cancelling it stops the model."""
        return self._astream(question, history)

    async def _astream(
        self, question: str, history: History | None
    ) -> AsyncGenerator[AnswerDelta, None]:
        run = await asyncio.to_thread(self._begin, question, history)
        if rewriting := await asyncio.to_thread(self._rewriting, run):
            with run.timed("rewrite"):
                reply = await self.llm.ainvoke(rewriting, **greedy_options(self.llm))
            run.searched = accepted(reply, run.question, run.searched)
        with run.timed("retrieve"):
            documents = await self.retriever.ainvoke(run.searched.text)
        prompt = await asyncio.to_thread(self._prepare, run, documents)
        if prompt:
            stream = cast("AsyncGenerator[BaseMessage, None]", self.llm.astream(prompt))
            with run.timed("generate"):
                async with aclosing(stream) as chunks:
                    async for chunk in chunks:
                        # Marks of a sentence among many passages may take a tenth of a second.
                        if delta := await asyncio.to_thread(run.add, chunk):
                            yield delta
                        if run.loops:
                            break
        if rest := run.complete():
            yield AnswerDelta(rest)
        yield await asyncio.to_thread(run.last_delta)

    # ------------------------------------------------------------ steps

    def _begin(self, question: str, history: History | None) -> AnswerRun:
        """Check that the question fits and choose the turns that go along, before any compute."""
        question = question.strip()
        if not question:
            raise ConfigError("the question is empty: type one")
        turns = history_turns(history)
        language = detect_language(question)
        run = AnswerRun(
            question=question,
            language=language,
            template=self.templates[language],
            conversation=tuple(turns),
            answered=tuple(answered_turns(turns)),
            searched=by_rule(question, turns, self.retrieval.rewrite),
            counter=TokenCounter(self.llm),
            window=context_window(self.llm, self.packing.window),
            reserve=self.packing.answer_reserve,
            guard=None if _watches_itself(self.llm) else TextLoopGuard(),
        )
        alone = run.count()
        room = run.window - run.reserve - alone
        if room <= 0:
            raise ContextWindowError(
                f"the question takes {alone} tokens, the prompt's own text included, and "
                f"{run.reserve} are kept for the answer, but the window holds {run.window}: "
                "shorten the question or lower packing.answer_reserve"
            )
        share = min(int(self.packing.history_share * run.window), room // 2)
        run.history = tuple(
            recent_turns(run.answered, lambda kept: run.count("", kept) - alone, share)
        )
        return run

    def _rewriting(self, run: AnswerRun) -> list[BaseMessage]:
        """What to ask the model for a question to search for; nothing if the rule's is taken."""
        if run.searched.by != "rule" or not asks_model(self.retrieval.rewrite, self.llm):
            return []
        turn = request(run.question, run.conversation, run.template, run.language)
        if run.counter.prompt([turn]) + MAX_TOKENS > run.window:
            run.searched = replace(run.searched, note="too long for the model to rewrite")
            return []
        return to_messages([turn])

    def _prepare(self, run: AnswerRun, documents: Sequence[Document]) -> list[BaseMessage]:
        """The prompt, or nothing where there is no evidence to answer from."""
        run.documents = documents
        judgement = judge(
            documents, abstain=self.retrieval.abstain, threshold=self.retrieval.threshold
        )
        if not judgement.answerable:
            run.reason = judgement.reason
            return []
        with run.timed("pack"):
            self._pack(run, documents)
        if not run.context.passages:
            raise ContextWindowError(
                f"no passage fits beside the question in a window of {run.window} tokens: "
                "shorten the question or lower packing.answer_reserve"
            )
        with run.timed("prompt"):
            turns = run.turns(run.render(run.added), run.history)
            run.prompt = turns[-1].text
            run.num_prompt_tokens = run.counter.prompt(turns)
        run.marker = Marker(run.context.passages, run.searched.text)
        return to_messages(turns)

    def _pack(self, run: AnswerRun, documents: Sequence[Document]) -> None:
        without = run.count("", run.history)
        shown = [passage for turn in run.history for passage in turn.passages]
        packed = pack(
            documents,
            count_tokens=lambda block: run.count(block, run.history) - without,
            budget=run.window - run.reserve - without,
            max_passages=self.packing.max_passages,
            relative_score=self.packing.relative_score,
            render=run.render,
            shown=shown,
        )
        run.added = packed.passages
        run.context = replace(packed, passages=(*shown, *packed.passages))
        run.report = run.spent()


def _answer(delta: AnswerDelta) -> Answer:
    if delta.answer is None:
        raise RuntimeError("a stream of deltas always ends with the answer")
    return delta.answer


def _watches_itself(llm: Runnable[Any, Any]) -> bool:
    """Whether the model has a loop guard, on or off: then its own setting holds."""
    while isinstance(llm, RunnableBinding):
        llm = llm.bound
    return hasattr(llm, "loop_guard")


def _generator(stream: Iterator[Any]) -> Generator[Any, None, None]:
    return cast("Generator[Any, None, None]", stream)
