"""The assistant: from a question to a cited answer, over any retriever and chat model."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from scripted_assistant import QUESTION, REPLY, TEXT, ListRetriever, assistant, document

from fakes import ScriptedEngine
from glm_rag.assistant import Assistant
from glm_rag.chat_models import ChatGLM2
from glm_rag.errors import ConfigError, ContextWindowError
from glm_rag.grounding import REFUSAL_SENTENCE
from glm_rag.settings import PackingSettings


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
