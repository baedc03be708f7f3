"""Words of the page that shows a document."""

from __future__ import annotations

TEXTS: dict[str, tuple[str, str]] = {
    "document_none": (
        "No document is chosen. Open one from the sources of an answer or from its knowledge base.",
        "尚未选择文档。请从回答的来源或知识库中打开。",
    ),
    "document_bad": (
        "This address does not name a place in a document: start and end must be numbers, "
        "start not after end.",
        "地址有误：start 和 end 应为数字，且 start 不大于 end。",
    ),
    "document_unknown": (
        "The knowledge base {kb} holds no such document (any more).",
        "知识库“{kb}”中没有（或已不再有）这份文档。",
    ),
    "document_beyond": (
        "The document ends before this passage: it has changed since. It is shown from its "
        "beginning.",
        "文档没有这么长，可能已更新，因此从头显示。",
    ),
    "language_en": ("English", "英文"),
    "language_zh": ("Chinese", "中文"),
    "characters": ("{n} character|{n} characters", "{n} 字"),
    "num_pages": ("{n} page|{n} pages", "共 {n} 页"),
    "part": ("Characters {start} to {end} of {n}", "第 {start}–{end} 字，共 {n} 字"),
    "part_before": ("Earlier", "前文"),
    "part_after": ("Later", "后文"),
    "part_passage": ("Back to the passage", "回到所引段落"),
    "page_of": ("Page {n} of {of}", "第 {n} 页，共 {of} 页"),
    "page_before": ("Previous page", "上一页"),
    "page_after": ("Next page", "下一页"),
    "pdf_inside": (
        "The page cannot be shown: the document lies inside an archive or a mail.",
        "无法显示页面：文档位于压缩包或邮件中。",
    ),
    "pdf_gone": (
        "The page cannot be shown: the file is not where it was read any more.",
        "无法显示页面：文件已不在原处。",
    ),
    "pdf_changed": (
        "The page cannot be shown: the file has changed since it was read. Ingest it again.",
        "无法显示页面：文件在读取后有改动，请重新导入。",
    ),
    "pdf_no_page": ("The file has no such page.", "文件中没有这一页。"),
    "pdf_unreadable": ("This page cannot be drawn.", "这一页无法绘制。"),
    "pdf_slow": ("Drawing this page takes too long.", "绘制这一页耗时过长。"),
    "pdf_not_installed": (
        'Pages need pypdfium2: pip install "glm-rag[documents]"',
        '显示页面需要 pypdfium2：pip install "glm-rag[documents]"',
    ),
}
