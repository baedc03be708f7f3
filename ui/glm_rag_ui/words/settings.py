"""Words of models, settings and status."""

from __future__ import annotations

TEXTS: dict[str, tuple[str, str]] = {
    "model": ("Model", "模型"),
    "small_model": (
        "For a first look: it reads English and makes mistakes.",
        "仅供初次体验：只懂英文，也会出错。",
    ),
    "no_model": ("One step before the first question", "提问之前还差一步"),
    "no_model_text": (
        "The language model {name} is not on this computer yet.",
        "本机还没有语言模型 {name}。",
    ),
    "no_model_small": (
        "SmolLM2-135M is a small, free model (about 100 MB). It is good for a first look and "
        "reads English; for real work use chatglm2-6b-32k.",
        "SmolLM2-135M 是一个免费的小模型（约 100 MB），适合初次体验，只懂英文；"
        "正式使用请换成 chatglm2-6b-32k。",
    ),
    "no_model_shell": ("Or in a terminal:", "或在终端运行："),
    "pull_button": ("Fetch SmolLM2-135M", "下载 SmolLM2-135M"),
    "pulling": ("Fetching the model", "正在下载模型"),
    "converting": ("Preparing the model", "正在准备模型"),
}
