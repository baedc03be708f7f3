"""Words of the retrieval test and of filters."""

from __future__ import annotations

TEXTS: dict[str, tuple[str, str]] = {
    "test_text": (
        "See what a question finds, by meaning and by words, and whether it would be answered. "
        "No answer is generated.",
        "查看一个问题按语义、按词语各能找到什么，以及系统是否会作答。这里不会生成回答。",
    ),
    "test_question": ("Question", "问题"),
    "test_k": ("Passages", "段落数"),
    "empty_test": (
        "Add documents first, then see what questions find in them.",
        "请先添加文档，再测试问题能找到什么。",
    ),
    "searching": ("Searching", "正在检索"),
    "filter_title": ("Search only in …", "限定检索范围"),
    "filter_documents": ("Documents", "文档"),
    "filter_folder": ("Folder or file", "文件夹或文件"),
    "filter_folder_help": (
        "All documents in this folder and below it. You can type a path.",
        "包括该文件夹及其子文件夹中的文档，也可以直接输入路径。",
    ),
    "filter_since": ("Changed since", "修改时间不早于"),
    "filter_language": ("Language", "语言"),
    "filter_any": ("All", "全部"),
    "would": ("This would be answered.", "系统会回答这个问题。"),
    "would_not": ("This would not be answered.", "系统不会回答这个问题。"),
    "nothing_small_talk": (
        "It is taken for small talk, which searches nothing.",
        "这被视为寒暄，不会检索。",
    ),
    "nothing_no_terms": (
        "It holds no word that says what is looked for.",
        "问题中没有可供检索的实词。",
    ),
    "nothing_matches": ("No passage passes the filter.", "没有符合限定范围的段落。"),
    "not_calibrated": (
        "Nobody has measured this embedder, so nothing is declined: glm-rag eval --calibrate "
        "fits the threshold.",
        "这个向量模型尚未校准，因此不会拒答；可用 glm-rag eval --calibrate 校准阈值。",
    ),
    "never_declines": (
        "Declining is turned off in the settings; the best evidence is {margin}.",
        "设置中已关闭拒答；最佳依据为 {margin}。",
    ),
    "margin_enough": (
        "The best passage has an evidence of {margin}; {threshold} is enough.",
        "最佳段落的依据强度为 {margin}，达到 {threshold} 即可作答。",
    ),
    "margin_short": (
        "The best passage has an evidence of {margin} only; {threshold} would be enough.",
        "最佳段落的依据强度只有 {margin}，需要达到 {threshold}。",
    ),
    "margin": ("evidence {margin}", "依据 {margin}"),
    "terms": ("Words searched", "检索词"),
    "terms_missing": (
        "Crossed out: in none of these passages. The number is what a word counts; rare ones "
        "count more.",
        "划线的词在这些段落中都没有出现。数字表示权重，越少见的词权重越高。",
    ),
    "terms_weight": (
        "The number is what a word counts; rare ones count more.",
        "数字表示权重，越少见的词权重越高。",
    ),
    "rank_dense": ("Meaning", "语义"),
    "rank_dense_help": ("Cosine of the vectors", "向量余弦相似度"),
    "rank_sparse": ("Words", "词语"),
    "rank_sparse_help": ("BM25 of shared words", "共有词的 BM25"),
    "rank_fused": ("Fused", "融合"),
    "rank_fused_help": ("The order that is used", "实际采用的顺序"),
    "no_hits": ("Nothing found.", "没有结果。"),
    "no_words": ("No passage shares a word with the question.", "没有段落包含问题中的词。"),
    "final": ("What the model is given", "最终交给模型的段落"),
    "was_fused": ("fused order: {n}", "融合名次 {n}"),
    "rerank_score": ("reranker {score}", "重排分数 {score}"),
    "no_rerank": (
        "The fused order is what the model is given: no reranking, diversity or expansion is set.",
        "未启用重排、多样化或上下文扩展，融合顺序即为最终顺序。",
    ),
}
