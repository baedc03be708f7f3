"""Questions that follow others: what of the talk the model reads, and what is cited."""

from __future__ import annotations

from scripted_assistant import QUESTION, REPLY, TEXT, assistant, document

from glm_rag.settings import PackingSettings
from glm_rag.types import ChatTurn


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
