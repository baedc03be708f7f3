"""How the exported tokenizers write a conversation, as Jinja templates."""

from __future__ import annotations

from glm_rag.models.export.sentencepiece_json import EOS_TOKEN, MARK, PROMPT_PREFIX

# The rules of `engine.chat_turns.to_rounds`: system texts stand directly before the first
# question, neighbouring turns of one role are joined by a blank line, and an answer without a
# question gets an empty one. U+FDD0 in a text becomes U+FFFD: it would spell special tokens.
CHATGLM2_TEMPLATE = (
    (
        """\
{%- set ns = namespace(system=none, question=none, answer=none, round=1, first=true) -%}
{%- for message in messages if message['role'] == 'system' -%}
{%- set ns.system = message['content'] if ns.system is none
    else ns.system + '\\n\\n' + message['content'] -%}
{%- endfor -%}
{%- macro clean(text) -%}{{ text | replace('MARK', '\ufffd') }}{%- endmacro -%}
{%- macro head() -%}
{{- '[Round ' ~ ns.round ~ ']\\n\\n问：' -}}
{{- clean(ns.system or '') if ns.round == 1 else '' -}}
{{- clean(ns.question or '') + '\\n\\n' -}}
{%- endmacro -%}
{{- 'PREFIX' -}}
{%- for message in messages if message['role'] != 'system' -%}
{%- if message['role'] not in ['user', 'assistant'] -%}
{{- raise_exception('ChatGLM2 knows the roles system, user and assistant only') -}}
{%- elif message['role'] == 'assistant' -%}
{%- set ns.answer = message['content'] if ns.answer is none
    else ns.answer + '\\n\\n' + message['content'] -%}
{%- elif ns.answer is not none -%}
{{- head() + '答：' + clean(ns.answer) + '\\n\\n' -}}
{%- set ns.round = ns.round + 1 -%}
{%- set ns.question = message['content'] -%}
{%- set ns.answer = none -%}
{%- else -%}
{%- set ns.question = message['content'] if ns.question is none
    else ns.question + '\\n\\n' + message['content'] -%}
{%- endif -%}
{%- endfor -%}
{%- if ns.answer is not none -%}
{{- head() + '答：' + clean(ns.answer) -}}
{%- if add_generation_prompt -%}
{{- raise_exception('the last message must be the user\\'s') -}}
{%- else -%}
{{- 'END' -}}
{%- endif -%}
{%- else -%}
{{- head() + ('答：' if add_generation_prompt else '') -}}
{%- endif -%}"""
    )
    .replace("MARK", MARK)
    .replace("PREFIX", PROMPT_PREFIX)
    .replace("END", EOS_TOKEN)
)

CHATML_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
