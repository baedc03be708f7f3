"""Words of the chat: questions, answers and their evidence."""

from __future__ import annotations

TEXTS: dict[str, tuple[str, str]] = {
    "new_conversation": ("New conversation", "新对话"),
    "ask_placeholder": ("Ask about {kb}", "向“{kb}”提问"),
    "ask_empty": ("Drop documents here to begin", "把文档拖到这里，即可开始"),
    "ask_nothing": (
        "There is no document yet that could answer this:",
        "还没有任何文档，暂时无法回答：",
    ),
    "ask_no_model": ("Fetch a model first", "请先下载模型"),
    "welcome": ("What would you like to know?", "想了解什么？"),
    "welcome_text": (
        "Answers quote your documents word for word. Point at a number, or tap it, to see the "
        "sentence behind it.",
        "回答会逐字引用你的文档。把鼠标移到数字上，或点一下，即可看到所依据的原句。",
    ),
    "waiting": ("Reading the documents", "正在查阅文档"),
    "sources": ("Sources", "来源"),
    "read": ("Passages it read", "已阅读的段落"),
    "also_read": ("Also read, not cited", "已阅读但未引用"),
    "dropped": (
        "{n} more found, left out as less relevant or for space",
        "另找到 {n} 个段落，因相关性较低或篇幅所限未采用",
    ),
    "nearest": ("Nearest passages", "最接近的段落"),
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
    "stop_answer": ("Stop answering", "停止生成"),
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
    "searched": ("Searched for:", "检索问题："),
    "searched_rule": ("(with the question before it)", "（已并入上一个问题）"),
    "searched_model": ("(rewritten by the model)", "（由模型改写）"),
    "why_nothing": (
        "Not one passage of this knowledge base shares words or meaning with the question.",
        "这个知识库中没有任何段落与问题相关。",
    ),
    "why_weak": (
        "The best passage found is too far from the question to answer from it.",
        "找到的最佳段落与问题相关度不足，不宜据此作答。",
    ),
    "why_margin": (" (evidence {s}; 0 is enough)", "（依据强度 {s}，达到 0 即可作答）"),
    "why_empty": ("The model wrote nothing.", "模型没有写出任何内容。"),
    "why_declined": (
        "The model read the passages and found no answer in them.",
        "模型读过这些段落，未能从中找到答案。",
    ),
    "open_document": ("Open in the whole text", "在全文中查看"),
    "window_used": ("{n} of {of} tokens of the context read", "上下文共 {of} 词元，已读 {n}"),
    "window_system": ("Instructions", "指令"),
    "window_history": ("Conversation", "对话历史"),
    "window_passage": ("Passage {n}", "段落 {n}"),
    "window_question": ("Question", "问题"),
    "window_reserve": ("Kept for the answer", "为回答预留"),
    "window_free": ("Free", "空闲"),
    "window_rounds_out": (
        "{n} earlier round left out|{n} earlier rounds left out",
        "{n} 轮较早的对话未放入",
    ),
    "window_rounds_short": (
        "{n} earlier round without its passages|{n} earlier rounds without their passages",
        "{n} 轮较早的对话略去了段落",
    ),
    "window_passages_out": ("{n} passage left out|{n} passages left out", "{n} 个段落未放入"),
    "queue": (
        "{n} question before yours|{n} questions before yours",
        "前面还有 {n} 个问题，请稍候",
    ),
    "elsewhere": (
        "This answer is being written in another window.",
        "这个回答正在另一个窗口中生成。",
    ),
    "no_evidence": (
        "The sources of this answer cannot be shown any more.",
        "这个回答的来源已无法显示。",
    ),
    "unsaved": ("This answer could not be saved.", "这个回答未能保存。"),
    "unsaved_text": (
        "It is gone when the page is reloaded. Is the disk full?",
        "重新载入页面后将丢失，请检查磁盘空间。",
    ),
    "empty_chat": (
        "Drop files into the box below, or add whole folders on the page of knowledge bases: "
        "PDF, Word, Excel, PowerPoint, Markdown, HTML, mail, code and more. "
        "Or look around with a short sample handbook in English and Chinese.",
        "把文件拖到下方输入框，或在“知识库”页面添加整个文件夹："
        "支持 PDF、Word、Excel、PowerPoint、Markdown、HTML、邮件、代码等。"
        "也可以先用一份中英双语的示例手册体验。",
    ),
    "to_knowledge": ("Knowledge bases", "前往知识库"),
    "conversation_gone": (
        "This conversation is not here (any more).",
        "没有找到这个对话，可能已被删除。",
    ),
    "search_conversations": ("Search conversations", "搜索对话"),
    "search_nothing": ("Nothing found.", "没有找到。"),
    "list_more": ("Show more", "显示更多"),
    "today": ("Today", "今天"),
    "earlier": ("Earlier", "更早"),
    "untitled": ("Untitled", "未命名"),
    "rename": ("Rename", "重命名"),
    "export": ("Download as Markdown", "导出为 Markdown"),
    "delete": ("Delete", "删除"),
    "delete_title": ("Delete this conversation?", "删除这个对话？"),
    "delete_text": (
        "“{title}” with all its questions and answers. This cannot be undone.",
        "将删除“{title}”及其全部问答，且无法恢复。",
    ),
    "cancel": ("Cancel", "取消"),
    "send": ("Send", "发送"),
    "edit": ("Edit the question", "修改问题"),
    "edit_later": (
        "{n} question after it is deleted, with its answer."
        "|{n} questions after it are deleted, with their answers.",
        "其后的 {n} 个问题及回答将被删除。",
    ),
    "went_on": (
        "This conversation went on in another window: here is its newest state.",
        "这个对话在另一个窗口中有了更新，已显示最新内容。",
    ),
    "regenerate": ("Answer again", "重新回答"),
    "feedback_say": ("Tell why", "说说原因"),
    "feedback_said": ("Your words", "我的评价"),
    "feedback_label": (
        "What was good or wrong about this answer?",
        "这个回答好在哪里，或错在哪里？",
    ),
    "feedback_hint": ("Ctrl+Enter keeps it", "按 Ctrl+Enter 保存"),
    "feedback_local": (
        "It is kept on this computer, with the answer.",
        "评价与回答一起保存在本机。",
    ),
}
