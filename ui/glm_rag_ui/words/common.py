"""Words that every page uses, errors included."""

from __future__ import annotations

TEXTS: dict[str, tuple[str, str]] = {
    "language": ("Language", "语言"),
    "nav_chat": ("Chat", "对话"),
    "nav_knowledge": ("Knowledge bases", "知识库"),
    "nav_retrieval": ("Retrieval test", "检索测试"),
    "nav_settings": ("Settings", "设置"),
    "nav_document": ("Document", "文档"),
    "token": ("Token", "访问令牌"),
    "token_ask": (
        "This page is protected. The token stands in the terminal where glm-rag was started.",
        "此页面受保护，请输入访问令牌。令牌显示在启动 glm-rag 的终端中。",
    ),
    "token_wrong": ("This is not the token. Try again.", "令牌不正确，请重试。"),
    "token_open": ("Open", "进入"),
    "local": ("Everything runs on this computer.", "所有处理都在本机完成。"),
    "remote": (
        "Questions and passages go to the language model at {address}.",
        "问题与片段会发送到 {address} 的语言模型。",
    ),
    "page": ("page {n}", "第 {n} 页"),
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
}
