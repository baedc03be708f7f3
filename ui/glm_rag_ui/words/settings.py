"""Words of models, settings and status."""

from __future__ import annotations

TEXTS: dict[str, tuple[str, str]] = {
    "model": ("Model", "模型"),
    "small_model": (
        "For a first look: it reads English and makes mistakes.",
        "仅供初次体验：只懂英文，也会出错。",
    ),
    # ---- first start
    "no_model": ("One step before the first question", "提问之前还差一步"),
    "no_model_text": (
        "glm-rag answers with a language model that runs on this computer. The model {name} is "
        "not here yet: choose one to fetch. Your documents come next.",
        "glm-rag 用本机运行的语言模型作答。本机还没有模型 {name}，请选择一个下载；之后再添加文档。",
    ),
    "no_model_shell": ("Or in a terminal:", "也可以在终端运行："),
    "about_smollm2": (
        "Small and free, for a first look. English only, and it makes mistakes. "
        "Needs about 1.5 GB of memory.",
        "免费的小模型，适合初次体验。只懂英文，也会出错。约需 1.5 GB 内存。",
    ),
    "about_chatglm2_32k": (
        "Chinese and English, long documents. For real work, with 16 GB of memory or a GPU.",
        "中英双语，适合长文档和正式使用。需要 16 GB 内存或显卡。",
    ),
    "about_chatglm2_int4": (
        "The same with 4-bit weights: a little less precise, in about 6 GB of memory.",
        "同一模型的 4 位量化版：精度略低，约需 6 GB 内存。",
    ),
    "about_chatglm2": (
        "Chinese and English, best for shorter documents. 16 GB of memory or a GPU.",
        "中英双语，更适合较短的文档。需要 16 GB 内存或显卡。",
    ),
    "model_size": ("{size} to download.", "需下载 {size}。"),
    "model_here": ("on this computer", "已在本机"),
    "model_license": ("Licence: {name}", "许可协议：{name}"),
    "model_accept": (
        "I have read the licence and agree to it.",
        "我已阅读并同意该许可协议。",
    ),
    "model_from": ("Download from", "下载来源"),
    "model_free": ("{size} free on the disk", "磁盘剩余 {size}"),
    "use_button": ("Use {name}", "使用 {name}"),
    "pull_button": ("Fetch {name}", "下载 {name}"),
    "pulling": ("Fetching the model", "正在下载模型"),
    "converting": ("Preparing the model", "正在准备模型"),
    "pull_waiting": (
        "Another visitor or command is fetching it; waiting for that",
        "该模型正由其他页面或命令下载，请稍候",
    ),
    "pull_failed": ("The model could not be fetched.", "模型下载失败。"),
    "pull_again": (
        "What was fetched so far is kept: try again to go on from there.",
        "已下载的部分会保留，重试即可继续。",
    ),
    # ---- settings
    "tab_model": ("Model and answers", "模型与回答"),
    "tab_retrieval": ("Search and evidence", "检索与依据"),
    "tab_browser": ("This browser", "本浏览器"),
    "tab_machine": ("This machine", "本机状态"),
    "set_saved": ("Changes count from the next question on.", "改动从下一个问题起生效。"),
    "set_wrong": ("This does not go together, so nothing was changed.", "设置冲突，未作改动。"),
    "set_reset": ("Reset to defaults", "恢复默认设置"),
    "set_changed": ("{n} setting changed|{n} settings changed", "已改动 {n} 项设置"),
    "set_model": ("Language model", "语言模型"),
    "set_model_help": (
        "What writes the answers. One that is not here yet is fetched on the chat page.",
        "撰写回答的模型。本机没有的模型可在对话页下载。",
    ),
    "set_quantize": ("Quantization", "权重量化"),
    "set_quantize_help": (
        "int8 halves the memory of a 16-bit model, int4 quarters it, at some loss of precision.",
        "int8 把 16 位模型的内存减半，int4 减到四分之一，精度略有损失。",
    ),
    "set_temperature": ("Temperature", "温度"),
    "set_temperature_help": (
        "0 always gives the same answer. More gives variety, and more mistakes.",
        "0 表示每次回答相同；越大越多样，也越容易出错。",
    ),
    "set_top_p": ("Choice of words (top-p)", "选词范围（top-p）"),
    "set_top_p_help": (
        "With a temperature above 0: how much of the likely words to choose from.",
        "温度大于 0 时，从多大比例的候选词中选取。",
    ),
    "set_max_tokens": ("Longest answer, in tokens", "回答长度上限（词元）"),
    "set_max_tokens_help": (
        "An answer that reaches this is cut, and the page says so.",
        "达到上限的回答会被截断，页面会注明。",
    ),
    "set_seed": ("Seed", "随机种子"),
    "set_seed_help": (
        "With a number, answers at a temperature above 0 can be repeated. Empty: by chance.",
        "填入数字后，温度大于 0 时也可复现回答；留空则随机。",
    ),
    "set_threshold": ("Evidence needed in “{kb}”", "“{kb}”所需的依据"),
    "set_threshold_help": (
        "Strict answers only what the documents clearly say; generous answers more, and errs more.",
        "越严格，只答文档明确写到的；越宽松，答得更多，也更易出错。",
    ),
    "set_strict": ("strict", "严格"),
    "set_generous": ("generous", "宽松"),
    "set_default": ("default", "默认"),
    "set_abstain": ("Say so when evidence is missing", "没有依据时不作答"),
    "set_abstain_help": (
        "Off: every question is answered, also from passages that hardly fit.",
        "关闭后，即使段落不太相关，也会作答。",
    ),
    "set_k": ("Passages found", "检索段落数"),
    "set_k_help": (
        "How many passages the search hands on; the best of them are read.",
        "检索返回的段落数，其中最相关的会被阅读。",
    ),
    "set_passages": ("Passages read, at most", "最多阅读段落数"),
    "set_passages_help": (
        "More can answer broader questions; a small model is misled by many.",
        "多读有助于回答宽泛的问题；小模型读得多容易受干扰。",
    ),
    "set_rewrite": ("Follow-up questions", "追问改写"),
    "set_rewrite_help": (
        "What completes “and for part-timers?” before the search: the model, a rule, or nothing.",
        "检索前由谁把“那兼职呢？”补全：模型、规则，或不补全。",
    ),
    "set_mmr": ("Variety of passages", "段落多样性"),
    "set_mmr_help": (
        "Above 0, passages that say the same as better ones step back.",
        "大于 0 时，与更优段落内容重复的段落会靠后。",
    ),
    "set_expand": ("Show passages with", "段落扩展"),
    "set_expand_help": (
        "The text around a passage, or its whole section, is read along.",
        "连同相邻文字或所在章节一起阅读。",
    ),
    "set_rerank": ("Second look", "重排序"),
    "set_rerank_help": (
        "Reads the first passages again to order them better: slower, often more precise.",
        "再次细读靠前的段落并重新排序：更慢，通常更准。",
    ),
    "set_rerank_model": ("Cross-encoder", "交叉编码器"),
    "set_rerank_model_help": (
        "Name or folder of the model for the second look by a cross-encoder.",
        "用于交叉编码器重排序的模型名称或文件夹。",
    ),
    "opt_auto": ("automatic", "自动"),
    "opt_int8": ("int8", "int8（8 位）"),
    "opt_int4": ("int4", "int4（4 位）"),
    "opt_rule": ("by rule", "按规则"),
    "opt_model": ("by the model", "由模型"),
    "opt_off": ("off", "关闭"),
    "opt_none": ("none", "无"),
    "opt_neighbours": ("text around them", "相邻文字"),
    "opt_section": ("their section", "所在章节"),
    "opt_likelihood": ("by the model itself", "由模型自身"),
    "opt_cross_encoder": ("by a cross-encoder", "由交叉编码器"),
    # ---- this browser
    "theme": ("Light or dark", "外观"),
    "theme_system": ("As the system", "跟随系统"),
    "theme_light": ("Light", "浅色"),
    "theme_dark": ("Dark", "深色"),
    "profile": ("Profile", "个人档案"),
    "profile_text": (
        "Conversations and settings belong to this browser. Another browser sees them only with "
        "this code: treat it like a password.",
        "对话和设置只属于本浏览器。其他浏览器须凭此代码才能看到，请像密码一样保管。",
    ),
    "profile_lost": (
        "This browser keeps no cookies: conversations are out of reach once the tab is closed.",
        "本浏览器未保存 Cookie，关闭标签页后将无法再看到这些对话。",
    ),
    "profile_show": ("Show the code", "显示代码"),
    "profile_enter": ("Use the profile of another browser", "使用其他浏览器的档案"),
    "profile_enter_help": (
        "The code stands in the other browser's settings.",
        "代码见另一浏览器的设置页。",
    ),
    "profile_wrong": (
        "This is no code of a profile: it has 32 digits and letters from a to f.",
        "代码无效：应为 32 位数字和字母 a–f。",
    ),
    "profile_use": ("Use it here", "在此使用"),
    "profile_new": ("Start an empty profile", "新建空白档案"),
    "profile_new_help": (
        "For handing on this computer. Note the code first if you want to come back.",
        "适合换人使用本机时。如需返回，请先记下当前代码。",
    ),
    # ---- this machine
    "mac_memory": ("Memory", "内存"),
    "mac_memory_text": ("{used} used by glm-rag, {free} free", "glm-rag 占用 {used}，剩余 {free}"),
    "mac_device": ("Device", "设备"),
    "mac_threads": (
        "{n} thread of {cores} cores|{n} threads of {cores} cores",
        "{n} 线程，共 {cores} 核",
    ),
    "mac_backend": ("Arithmetic", "计算后端"),
    "mac_models": ("Loaded models", "已加载模型"),
    "mac_none": ("none yet", "暂无"),
    "mac_cache": ("Kept prompts", "提示缓存"),
    "mac_cache_text": (
        "{memory} of {memory_limit} in memory, {disk} of {disk_limit} on disk",
        "内存 {memory} / {memory_limit}，磁盘 {disk} / {disk_limit}",
    ),
    "mac_cache_off": ("off", "已关闭"),
    "mac_home": ("Data folder", "数据文件夹"),
    "mac_home_text": ("{folder} · {free} free", "{folder} · 剩余 {free}"),
    "mac_versions": ("Versions", "版本"),
    "mac_findings": ("To look at", "需要留意"),
    "mac_fine": ("Everything is in order.", "一切正常。"),
    "mac_looking": ("Looking at the machine", "正在检查本机"),
    "mac_again": ("Look again", "重新检查"),
}
