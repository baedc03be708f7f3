"""Words of knowledge bases and their documents."""

from __future__ import annotations

TEXTS: dict[str, tuple[str, str]] = {
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
    "empty": ("This knowledge base is empty", "这个知识库还是空的"),
    "empty_text": (
        "Add documents in the side panel: PDF, Word, Markdown, HTML or plain text. "
        "Or look around with a short sample handbook in English and Chinese.",
        "请在侧栏添加文档：PDF、Word、Markdown、HTML 或纯文本。"
        "也可以先用一份中英双语的示例手册体验。",
    ),
    "sample_button": ("Load the sample handbook", "载入示例手册"),
    "ingesting": ("Reading documents", "正在读取文档"),
    "ingest_count": ("{done} of {total}", "第 {done} 份，共 {total} 份"),
    "report_added": ("{n} added", "新增 {n} 份"),
    "report_updated": ("{n} updated", "更新 {n} 份"),
    "report_skipped": ("{n} unchanged", "{n} 份未变"),
    "report_failed_before": ("{n} not readable as before", "{n} 份仍无法读取"),
    "report_failed": ("{n} not readable", "{n} 份无法读取"),
    "report_nothing": ("Nothing to add", "没有可添加的内容"),
    "reason_empty": ("empty", "空文件"),
    "reason_encrypted": ("password-protected", "有密码保护"),
    "reason_corrupt": ("damaged", "文件损坏"),
    "reason_unsupported": ("format not supported", "格式不受支持"),
    "reason_unreadable": ("cannot be opened", "无法打开"),
    "reason_no_text": ("no text found", "未找到文字"),
}
