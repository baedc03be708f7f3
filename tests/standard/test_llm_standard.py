"""`langchain-tests` has no suite for completion models: what any Runnable promises, on SmolLM2."""

from __future__ import annotations

import pytest

from glm_rag.llms import ChatGLM2LLM

pytestmark = pytest.mark.usefixtures("no_network")

PROMPT = "The capital of France is"


@pytest.fixture
def llm(smollm2):
    return ChatGLM2LLM(model=str(smollm2), temperature=0, max_tokens=8)


def test_invoke_continues_the_text(llm):
    assert "Paris" in llm.invoke(PROMPT)


async def test_every_way_to_call_gives_the_same_text(llm):
    text = llm.invoke(PROMPT)
    assert "".join(llm.stream(PROMPT)) == text
    assert llm.batch([PROMPT, PROMPT]) == [text, text]
    assert await llm.ainvoke(PROMPT) == text
    assert await llm.abatch([PROMPT]) == [text]
    assert "".join([piece async for piece in llm.astream(PROMPT)]) == text


def test_it_composes_with_a_prompt(llm):
    from langchain_core.prompts import PromptTemplate

    chain = PromptTemplate.from_template("The capital of {country} is") | llm
    assert chain.invoke({"country": "France"}) == llm.invoke(PROMPT)
