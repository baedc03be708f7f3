"""The assistant: from a question to a cited answer, over any retriever and chat model."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.retrievers import BaseRetriever
from pydantic import Field

from fakes import ScriptedEngine
from glm_rag.assistant import Assistant
from glm_rag.chat_models import ChatGLM2
from glm_rag.errors import ConfigError, ContextWindowError
from glm_rag.grounding import REFUSAL_SENTENCE
from glm_rag.settings import PackingSettings, RetrievalSettings
from glm_rag.types import ChatTurn

TEXT = "Parental leave lasts 26 weeks and is open to every parent. Sushi is free on Fridays."
QUESTION = "How long is parental leave?"
REPLY = "Parental leave lasts 26 weeks."


class ListRetriever(BaseRetriever):
    """Finds the same documents for every question and remembers the questions."""

    documents: list[Document]
    questions: list[str] = Field(default_factory=list)

    def _get_relevant_documents(self, query, *, run_manager):
        self.questions.append(query)
        return self.documents


def document(text: str = TEXT, start: int = 100, **metadata) -> Document:
    metadata = {
        "source": "file:///h.md",
        "title": "Handbook",
        "page": 2,
        "start": start,
        "end": start + len(text),
        "score": 0.9,
        **metadata,
    }
    return Document(id=f"c{start}", page_content=text, metadata=metadata)


def assistant(*replies: str, documents=None, packing=None, abstain=True, **engine):
    documents = [document()] if documents is None else documents
    scripted = ScriptedEngine(list(replies or (REPLY,)), **engine)
    made = Assistant(
        ListRetriever(documents=documents),
        ChatGLM2(engine=scripted, max_tokens=400),
        packing=packing,
        retrieval=RetrievalSettings(abstain=abstain),
    )
    return made, scripted


def test_an_answer_cites_the_stored_text():
    made, engine = assistant()
    answer = made.ask(QUESTION)
    assert answer.text == REPLY
    (citation,) = answer.citations
    assert citation.quote == TEXT[citation.start - 100 : citation.end - 100]
    assert (citation.source, citation.page, citation.chunk_id) == ("file:///h.md", 2, "c100")
    assert not answer.abstained
    assert answer.finish_reason == "stop"
    assert answer.usage.input_tokens == len(engine.prompts[0])
    assert {"retrieve", "pack", "first_token", "generate", "cite", "total"} <= set(answer.timings)


def test_the_stream_joins_to_the_answer_and_ends_with_it():
    made, _ = assistant()
    *pieces, last = made.stream(QUESTION)
    assert len(pieces) > 1
    assert all(piece.answer is None for piece in pieces)
    assert last.text == ""
    assert "".join(piece.text for piece in pieces) == last.answer.text == made.ask(QUESTION).text


async def test_async_gives_the_same_answer():
    made, _ = assistant()
    answer = await made.aask(QUESTION)
    deltas = [delta async for delta in made.astream(QUESTION)]
    expected = made.ask(QUESTION)
    assert answer.text == deltas[-1].answer.text == expected.text
    assert answer.citations == deltas[-1].answer.citations == expected.citations


def test_the_prompt_holds_the_passage_and_ends_with_the_question():
    made, engine = assistant()
    made.ask(QUESTION)
    prompt = engine.prompt_texts[0]
    assert prompt.index("Handbook (page 2)") < prompt.index(TEXT) < prompt.index(QUESTION)


def test_the_prompt_is_in_the_language_of_the_question():
    made, engine = assistant("二十六周。")
    made.ask("育儿假有多长？")
    assert "请" in engine.prompt_texts[0]
    assert "Handbook（第2页）" in engine.prompt_texts[0]


# ---------------------------------------------------------------- abstention


@pytest.mark.parametrize("documents", [[], [document(evidence=-1.0)]])
def test_without_evidence_the_model_is_not_asked(documents):
    made, engine = assistant(documents=documents)
    *_, last = made.stream(QUESTION)
    answer = last.answer
    assert answer.abstained
    assert answer.reason
    assert answer.citations == ()
    assert [item.document for item in answer.nearest] == documents
    assert engine.prompts == []


def test_without_evidence_it_says_so_in_the_language_of_the_question():
    made, _ = assistant(documents=[])
    assert made.ask(QUESTION).text.isascii()
    assert "没有" in made.ask("育儿假有多长？").text


def test_evidence_of_nought_is_enough():
    made, _ = assistant(documents=[document(evidence=0.0)])
    assert not made.ask(QUESTION).abstained


def test_abstaining_can_be_turned_off():
    made, _ = assistant(documents=[document(evidence=-1.0)], abstain=False)
    assert made.ask(QUESTION).text == REPLY


@pytest.mark.parametrize("reply", [REFUSAL_SENTENCE["en"], ""])
def test_a_model_that_refuses_or_is_silent_abstains(reply):
    made, _ = assistant(reply)
    *pieces, last = made.stream(QUESTION)
    assert last.answer.abstained
    assert last.answer.citations == ()
    assert last.answer.nearest
    assert "".join(piece.text for piece in pieces) == last.answer.text != ""


# ---------------------------------------------------------------- window


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question_is_an_error(question):
    made, _ = assistant()
    with pytest.raises(ConfigError, match="empty"):
        made.ask(question)


def test_a_question_longer_than_the_window_fails_before_anything_is_computed():
    made, engine = assistant(context_window=1024)
    with pytest.raises(ContextWindowError, match="shorten the question"):
        made.ask("why " * 500)
    assert made.retriever.questions == []
    assert engine.prompts == []


def test_prompt_and_answer_fit_the_window_exactly():
    many = [document(TEXT * 3, start=1000 * n, score=0.9 - n / 1000) for n in range(20)]
    many = [
        d.model_copy(update={"page_content": f"{n} " + d.page_content}) for n, d in enumerate(many)
    ]
    packing = PackingSettings(window=1500, answer_reserve=200, max_passages=20)
    made, engine = assistant(documents=many, packing=packing)
    answer = made.ask(QUESTION)
    assert len(answer.context.passages) > 1
    assert answer.context.num_dropped == 20 - len(answer.context.passages)
    assert answer.context.num_tokens <= answer.context.budget
    assert len(engine.prompts[0]) + 200 <= 1500
    assert answer.usage.input_tokens == len(engine.prompts[0])


def test_when_no_passage_fits_whole_the_best_is_cut():
    packing = PackingSettings(window=1000, answer_reserve=200)
    made, engine = assistant(documents=[document(TEXT * 50)], packing=packing)
    (passage,) = made.ask(QUESTION).context.passages
    assert passage.truncated
    assert len(engine.prompts[0]) + 200 <= 1000


# ---------------------------------------------------------------- follow-ups


def test_a_follow_up_takes_the_conversation_along():
    made, engine = assistant(REPLY, "The same.")
    first = made.ask(QUESTION)
    second = made.ask("And for part-timers?", history=first)
    assert made.retriever.questions[1] == f"{QUESTION}\nAnd for part-timers?"
    assert second.search_question == made.retriever.questions[1]
    assert engine.prompt_texts[1].index(REPLY) < engine.prompt_texts[1].index(
        "And for part-timers?"
    )
    assert [turn.text for turn in second.messages] == [
        QUESTION,
        REPLY,
        "And for part-timers?",
        "The same.",
    ]


def test_a_short_follow_up_answer_is_cited_by_what_was_searched_for():
    made, _ = assistant(REPLY, "26 weeks.")
    first = made.ask(QUESTION)
    (citation,) = made.ask("And for part-timers?", history=first).citations
    assert citation.quote.startswith("Parental leave lasts 26 weeks")


def test_a_declined_question_stays_in_the_conversation_but_out_of_the_prompt():
    made, engine = assistant()
    documents, made.retriever.documents = made.retriever.documents, []
    declined = made.ask("What is the capital of France?")
    made.retriever.documents = documents
    answer = made.ask(QUESTION, history=declined)
    assert [turn.text for turn in answer.messages[:2]] == [declined.question, declined.text]
    assert "France" not in engine.prompt_texts[0]
    assert declined.text not in engine.prompt_texts[0]


def test_an_answer_in_the_history_keeps_its_ids():
    made, engine = assistant()
    first = made.ask(QUESTION)
    assert first.messages[-1].token_ids == tuple(engine.tokenizer.encode(REPLY))


def test_a_follow_up_goes_on_where_the_prompt_before_it_ended():
    made, engine = assistant(REPLY, "The same.", "Yes.")
    first = made.ask(QUESTION)
    second = made.ask("And for part-timers?", history=first)
    third = made.ask("Is that for all of them?", history=second)
    prompts = engine.prompts
    for before, after, answer in zip(prompts, prompts[1:], (first, second), strict=False):
        said = [*before, *answer.messages[-1].token_ids]
        assert after[: len(said)] == said
    assert engine.prompt_texts[2].count(TEXT) == 1  # found again, not repeated
    assert [p.index for p in third.context.passages] == [1]
    assert [turn.text for turn in third.messages[::2]] == [
        QUESTION,
        "And for part-timers?",
        "Is that for all of them?",
    ]


def test_an_answer_from_an_earlier_passage_cites_it():
    made, _ = assistant("It depends.", REPLY)
    second = made.ask("So how long is it?", history=made.ask(QUESTION))
    (citation,) = second.citations
    assert citation.quote == TEXT[citation.start - 100 : citation.end - 100]
    assert citation.index == 1


def test_a_new_passage_enters_the_new_round_under_the_next_number():
    other = "Annual leave is 27 days. It must be booked in the portal."
    made, engine = assistant(REPLY, "Annual leave is 27 days.")
    first = made.ask(QUESTION)
    made.retriever.documents = [document(other, start=900), document()]
    second = made.ask("And how long is annual leave?", history=first)
    assert engine.prompts[1][: len(engine.prompts[0])] == engine.prompts[0]
    assert f"[2] Handbook (page 2)\n```\n{other}\n```" in engine.prompt_texts[1]
    assert engine.prompt_texts[1].count(TEXT) == 1
    assert [p.index for p in second.context.passages] == [1, 2]
    (citation,) = second.citations
    assert (citation.index, citation.chunk_id) == (2, "c900")


def test_a_passage_that_left_the_window_is_shown_again():
    packing = PackingSettings(window=1400, answer_reserve=200, history_share=0.2)
    made, engine = assistant(REPLY, packing=packing)
    answer = made.ask(QUESTION)
    for _ in range(4):
        answer = made.ask("And for part-timers?", history=answer)
        assert engine.prompt_texts[-1].count(TEXT) == 1
        assert answer.citations
        assert len(engine.prompts[-1]) + 200 <= 1400


def test_what_the_model_read_before_is_no_part_of_the_json_output():
    from glm_rag.cli.common import to_plain

    made, _ = assistant()
    plain = to_plain(made.ask(QUESTION))
    assert set(plain["messages"][0]) == {"role", "text", "token_ids"}


def test_a_long_history_is_cut_at_whole_turns():
    turns = [
        ChatTurn(role, f"{role} {n} " + "x" * 80)
        for n in range(30)
        for role in ("user", "assistant")
    ]
    packing = PackingSettings(window=2000, answer_reserve=200, history_share=0.25)
    made, engine = assistant(packing=packing)
    answer = made.ask(QUESTION, history=turns)
    prompt = engine.prompt_texts[0]
    assert "assistant 29" in prompt
    assert "user 0 " not in prompt
    assert prompt.count("user 2") == prompt.count("assistant 2") > 0
    assert len(answer.messages) == len(turns) + 2


# ---------------------------------------------------------------- stopping


def test_closing_the_stream_stops_the_model():
    made, engine = assistant("word " * 70)
    deltas = made.stream(QUESTION)
    next(deltas)
    deltas.close()
    assert engine.closed == 1


async def test_cancelling_stops_the_model():
    made, engine = assistant("word " * 70)
    deltas = made.astream(QUESTION)
    await anext(deltas)
    task = asyncio.create_task(anext(deltas))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(100):
        if engine.closed:
            break
        await asyncio.sleep(0.01)
    assert engine.closed == 1


@pytest.mark.parametrize(
    "line", ["The leave is long.\n", "The leave is long. ", "假期很长很长很长。"]
)
def test_an_answer_that_repeats_itself_is_stopped(line):
    made, engine = assistant("Leave: " + line * 20)
    deltas = list(made.stream(QUESTION))
    answer = deltas[-1].answer
    assert answer.text == f"Leave: {line}".rstrip()
    assert answer.finish_reason == "repetition"
    assert 3 <= "".join(delta.text for delta in deltas).count(line.strip()) < 6
    assert answer.messages[-1] == ChatTurn("assistant", answer.text)
    assert engine.closed == 1


LOOP = "Leave: " + "The leave is long enough for every single one of us here. " * 20


async def test_a_foreign_model_that_repeats_itself_is_stopped():
    model = GenericFakeChatModel(messages=iter([LOOP] * 2))
    made = Assistant(ListRetriever(documents=[document()]), model)
    for answer in (made.ask(QUESTION), await made.aask(QUESTION)):
        assert answer.finish_reason == "repetition"
        assert answer.text == LOOP[: LOOP.index("here.") + 5]
        assert answer.usage.output_tokens < 100


@pytest.mark.parametrize("bound", [False, True])
def test_a_model_with_a_guard_of_its_own_decides_itself(bound):
    reply = "The leave is long. " * 20
    llm = ChatGLM2(engine=ScriptedEngine([reply]), loop_guard=False, max_tokens=500)
    made = Assistant(
        ListRetriever(documents=[document()]), llm.bind(stop=["zzz"]) if bound else llm
    )
    answer = made.ask(QUESTION)
    assert answer.finish_reason == "stop"
    assert answer.text == reply


def test_a_table_rule_is_no_loop():
    reply = "a | b\n" + "-" * 60 + "\nParental leave lasts 26 weeks."
    made, _ = assistant(reply)
    assert made.ask(QUESTION).text == reply


# ---------------------------------------------------------------- any LangChain parts


def test_a_foreign_chat_model_and_retriever_will_do():
    plain = Document(page_content=TEXT)
    made = Assistant(ListRetriever(documents=[plain]), FakeListChatModel(responses=[REPLY]))
    answer = made.ask(QUESTION)
    assert answer.text == REPLY
    (citation,) = answer.citations
    assert citation.quote == TEXT[citation.start : citation.end]
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0


def test_a_foreign_chat_model_is_never_counted_by_way_of_the_network(no_network):
    made = Assistant(ListRetriever(documents=[document()]), FakeListChatModel(responses=[REPLY]))
    assert made.ask(QUESTION).context.num_tokens > 0


def test_a_bound_chat_model_keeps_its_own_tokenizer_and_window():
    engine = ScriptedEngine([REPLY], context_window=1100)
    llm = ChatGLM2(engine=engine).bind(stop=["weeks"])
    made = Assistant(ListRetriever(documents=[document()]), llm)
    answer = made.ask(QUESTION)
    assert answer.text == "Parental leave lasts 26 "
    assert answer.context.budget < 1100 - 512


def test_a_retriever_that_is_a_chain_will_do():
    chain = ListRetriever(documents=[document()]) | (lambda found: found[:1])
    made = Assistant(chain, ChatGLM2(engine=ScriptedEngine([REPLY])))
    assert made.ask(QUESTION).citations
