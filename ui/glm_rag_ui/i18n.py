"""The words of the page in English and Chinese. Pure data and lookups."""

from __future__ import annotations

from collections.abc import Callable

from glm_rag.types import Language

Translate = Callable[..., str]

LANGUAGE_NAMES: dict[Language, str] = {"zh": "中文", "en": "EN"}

# key: (English, Chinese). English text of the form "one|many" is chosen by the argument `n`.
TEXTS: dict[str, tuple[str, str]] = {
    "language": ("Language", "语言"),
    "kb": ("Knowledge base", "知识库"),
    "kb_help": (
        "Choose one, or type a new name to make another.",
        "选择一个知识库，或输入新名称来新建。",
    ),
    "upload": ("Add documents", "添加文档"),
    "upload_help": (
        "Files stay on this computer. They are copied to the data folder of glm-rag.",
        "文件只保存在本机，会复制到 glm-rag 的数据文件夹。",
    ),
    "picker_button": ("Choose files", "选择文件"),
    "picker_hint": (
        "or drop them here: PDF, Word, MD, HTML, TXT",
        "或拖到此处：PDF、Word、MD、HTML、TXT",
    ),
    "documents": ("{n} document|{n} documents", "{n} 份文档"),
    "passages": ("{n} passage|{n} passages", "{n} 个段落"),
    "failures": ("{n} file could not be read|{n} files could not be read", "{n} 个文件未能读取"),
    "more": ("and {n} more", "另有 {n} 项"),
    "new_conversation": ("New conversation", "新对话"),
    "model": ("Model", "模型"),
    "small_model": (
        "For a first look: it reads English and makes mistakes.",
        "仅供初次体验：只懂英文，也会出错。",
    ),
    "local": ("Everything runs on this computer.", "所有处理都在本机完成。"),
    "ask_placeholder": ("Ask about {kb}", "向“{kb}”提问"),
    "ask_disabled": ("Add documents first", "请先添加文档"),
    "ask_no_model": ("Fetch a model first", "请先下载模型"),
    "welcome": ("What would you like to know?", "想了解什么？"),
    "welcome_text": (
        "Answers quote your documents word for word. Point at a number to see the sentence "
        "behind it.",
        "回答会逐字引用你的文档。把鼠标移到数字上，即可看到所依据的原句。",
    ),
    "empty": ("This knowledge base is empty", "这个知识库还是空的"),
    "empty_text": (
        "Add documents in the side panel: PDF, Word, Markdown, HTML or plain text. "
        "Or look around with a short sample handbook in English and Chinese.",
        "请在侧栏添加文档：PDF、Word、Markdown、HTML 或纯文本。"
        "也可以先用一份中英双语的示例手册体验。",
    ),
    "sample_button": ("Load the sample handbook", "载入示例手册"),
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
    "ingesting": ("Reading documents", "正在读取文档"),
    "ingest_count": ("{done} of {total}", "第 {done} 份，共 {total} 份"),
    "report_added": ("{n} added", "新增 {n} 份"),
    "report_updated": ("{n} updated", "更新 {n} 份"),
    "report_skipped": ("{n} unchanged", "{n} 份未变"),
    "report_failed_before": ("{n} not readable as before", "{n} 份仍无法读取"),
    "report_failed": ("{n} not readable", "{n} 份无法读取"),
    "report_nothing": ("Nothing to add", "没有可添加的内容"),
    "waiting": ("Reading the documents", "正在查阅文档"),
    "sources": ("Sources", "来源"),
    "read": ("Passages it read", "已阅读的段落"),
    "also_read": ("Also read, not cited", "已阅读但未引用"),
    "dropped": (
        "{n} more found, left out as less relevant or for space",
        "另找到 {n} 个段落，因相关性较低或篇幅所限未采用",
    ),
    "nearest": ("Nearest passages", "最接近的段落"),
    "page": ("page {n}", "第 {n} 页"),
    "tokens": ("{n} token|{n} tokens", "{n} 个词元"),
    "truncated": ("shortened to fit", "已截短"),
    "verbatim": ("in the document's words", "与原文一致"),
    "no_sentence": ("No passage says this", "资料中没有这句话的依据"),
    "no_number": ("This number stands in no passage", "资料中没有这个数字"),
    "paraphrase": ("in other words", "意思相近"),
    "not_cited": (
        "No sentence of this answer could be matched to a document.",
        "这个回答中没有任何一句能与文档对应，请谨慎采用。",
    ),
    "unread": (
        "This model reads English only: do not trust what it says about a Chinese question.",
        "当前模型只懂英文，请勿采信它对中文问题的回答；中文提问请换用 chatglm2-6b-32k。",
    ),
    "stopped": ("Stopped. The answer is incomplete.", "已停止，回答不完整。"),
    "repeated": (
        "The model began to repeat itself, so the answer was ended.",
        "模型开始重复，回答已提前结束。",
    ),
    "cut": ("The answer reached its length limit.", "回答已达到长度上限。"),
    "fig_first": ("first word after {s} s", "首字 {s} 秒"),
    "fig_speed": ("{n} tokens/s", "每秒 {n} 词元"),
    "fig_written": ("{n} tokens written", "写 {n} 词元"),
    "fig_read": ("{n} read", "读 {n} 词元"),
    "fig_total": ("{s} s in all", "共 {s} 秒"),
    "error": ("That did not work.", "出错了。"),
    "error_kept": (
        "The answer broke off here. What came before is kept.",
        "回答在此中断，已生成的部分予以保留。",
    ),
    "error_internal": (
        "Unexpected error ({kind}). The terminal that runs glm-rag shows the details.",
        "意外错误（{kind}），详情见运行 glm-rag 的终端。",
    ),
    "error_config": ("A setting is wrong.", "设置有误。"),
    "error_dependency": ("A package is missing.", "缺少依赖包。"),
    "error_model_missing": ("The model is not on this computer.", "本机没有这个模型。"),
    "error_model": ("The model cannot be loaded.", "模型无法加载。"),
    "error_window": (
        "The question and the conversation are too long for the model.",
        "问题与对话过长，超出模型的上下文窗口。",
    ),
    "error_kb": ("The knowledge base cannot be used.", "知识库无法使用。"),
    "error_document": ("A document cannot be read.", "有文档无法读取。"),
    "reason_empty": ("empty", "空文件"),
    "reason_encrypted": ("password-protected", "有密码保护"),
    "reason_corrupt": ("damaged", "文件损坏"),
    "reason_unsupported": ("format not supported", "格式不受支持"),
    "reason_unreadable": ("cannot be opened", "无法打开"),
    "reason_no_text": ("no text found", "未找到文字"),
}


def translator(language: Language) -> Translate:
    """A function from a key and arguments to a text in `language`.

    Raises:
        KeyError: from the returned function, when the key is unknown.
    """
    column = 1 if language == "zh" else 0

    def translate(key: str, **values: object) -> str:
        text = TEXTS[key][column]
        if "|" in text:
            one, many = text.split("|")
            text = one if values.get("n") == 1 else many
        return text.format(**{name: _number(value) for name, value in values.items()})

    return translate


def _number(value: object) -> object:
    return f"{value:,}" if isinstance(value, int) else value


def choose_language(wanted: str | None, locale: str | None) -> Language:
    """The language asked for in the address, else the browser's: Chinese if it says so."""
    if wanted in LANGUAGE_NAMES:
        return "zh" if wanted == "zh" else "en"
    return "zh" if (locale or "").lower().startswith("zh") else "en"
