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
    "picker_hint": ("or drop them here", "或拖到此处"),
    "documents": ("{n} document|{n} documents", "{n} 份文档"),
    "passages": ("{n} passage|{n} passages", "{n} 个段落"),
    "failures": ("{n} file could not be read|{n} files could not be read", "{n} 个文件未能读取"),
    "more": ("and {n} more", "另有 {n} 项"),
    "empty": ("This knowledge base is empty", "这个知识库还是空的"),
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
    # ---- the page of knowledge bases
    "kb_new": ("New knowledge base", "新建知识库"),
    "kb_name": ("Name", "名称"),
    "create": ("Create", "创建"),
    "kb_rename": ("Rename", "重命名"),
    "kb_delete": ("Delete", "删除"),
    "kb_bad_name": ("This cannot be a name.", "不能使用这个名称。"),
    "kb_bad_name_text": (
        "Use up to 64 letters of any script, digits, spaces, dots, - and _, beginning with a "
        "letter or digit.",
        "名称最多 64 个字符，可用文字、数字、空格、句点、- 和 _，并以文字或数字开头。",
    ),
    "kb_taken": ("There is a knowledge base {kb} already.", "已有名为“{kb}”的知识库。"),
    "kb_taken_text": ("Choose another name.", "请换一个名称。"),
    "kb_busy": (
        "Somebody is adding documents to this knowledge base. Try again when that is done.",
        "正在向这个知识库添加文档，请待其完成后重试。",
    ),
    "kb_absent": ("There is no knowledge base {kb} yet", "还没有名为“{kb}”的知识库"),
    "kb_absent_text": (
        "It is made with its first document: add some here, or create an empty one.",
        "添加第一份文档时会自动创建；也可以先新建一个空的知识库。",
    ),
    "kb_unusable": ("This knowledge base cannot be opened.", "这个知识库无法打开。"),
    "kb_parts": ("Parts of the knowledge base", "知识库内容"),
    "kb_delete_text": (
        "Its {n} document and all passages go, with the files that were uploaded here. Files in "
        "other folders stay.|Its {n} documents and all passages go, with the files that were "
        "uploaded here. Files in other folders stay.",
        "其中的 {n} 份文档、全部段落以及上传到这里的文件都会删除；其他文件夹中的文件不受影响。",
    ),
    "delete_type": ("Type its name to confirm", "输入知识库名称以确认"),
    "delete_yes": ("Delete for good", "永久删除"),
    "delete_differs": ("That is not its name.", "输入的名称不一致。"),
    "section_documents": ("Documents", "文档"),
    "section_add": ("Add", "添加"),
    "section_overview": ("Statistics", "统计"),
    "section_map": ("Map", "分布图"),
    "section_failures": ("Not readable", "未能读取"),
    "column_name": ("Name", "名称"),
    "column_title": ("Title", "标题"),
    "column_kind": ("Format", "格式"),
    "column_passages": ("Passages", "段落"),
    "column_size": ("Size", "大小"),
    "column_added": ("Added", "添加时间"),
    "column_file": ("File", "文件"),
    "column_reason": ("Reason", "原因"),
    "column_folder": ("Folder", "文件夹"),
    "lang_english": ("English", "英文"),
    "lang_chinese": ("Chinese", "中文"),
    "kind_image": ("Image", "图片"),
    "kind_mail": ("Mail", "邮件"),
    "kind_text": ("Text", "纯文本"),
    "others": ("Others", "其他"),
    # ---- adding
    "upload_formats": (
        "PDF, Word, PowerPoint, Excel, ODT, Markdown, HTML, text, CSV, JSON, e-mail, EPUB, images "
        "(OCR), source code, ZIP with any of these.",
        "支持 PDF、Word、PowerPoint、Excel、ODT、Markdown、HTML、文本、CSV、JSON、邮件、EPUB、"
        "图片（OCR）、源代码，以及包含这些文件的 ZIP。",
    ),
    "server_folder": ("A folder of this computer", "本机文件夹"),
    "server_folder_none": (
        "No folder may be read from the page. Whoever runs glm-rag can allow some in the settings "
        "file and start it again:",
        "目前不允许从网页读取本机文件夹。运行 glm-rag 的人可以在设置文件中指定允许的文件夹，"
        "然后重新启动：",
    ),
    "server_folder_read": ("Read the folder", "读取文件夹"),
    "server_folder_help": (
        "Subfolders are read, too. What has not changed is skipped.",
        "包括子文件夹；没有变化的文件会跳过。",
    ),
    "folder_outside": ("This folder may not be read.", "不允许读取这个文件夹。"),
    "folder_missing": ("There is no such folder or file.", "没有这个文件夹或文件。"),
    "folder_allowed": ("Allowed: {folders}", "允许读取：{folders}"),
    "ingest_starting": ("Looking at the files", "正在查看文件"),
    "ingest_rate": ("{rate} passages/s", "每秒 {rate} 个段落"),
    "time_left": ("about {time} left", "约剩 {time}"),
    "seconds": ("{n} s", "{n} 秒"),
    "minutes": ("{n} min", "{n} 分钟"),
    "hours": ("{n} h", "{n} 小时"),
    "stop": ("Stop", "停止"),
    "stop_help": (
        "What is finished stays; you can go on later.",
        "已完成的部分会保留，之后可以继续。",
    ),
    "stopping": ("Stopping after the passages at hand", "正在停止，处理完手头的段落就结束"),
    "run_stopped": ("Stopped.", "已停止。"),
    "run_stopped_text": (
        "What was finished is in the knowledge base. Going on takes up the rest.",
        "已完成的部分已在知识库中，继续即可处理其余文件。",
    ),
    "go_on": ("Go on", "继续"),
    "try_again": ("Try again", "重试"),
    "try_all_again": ("Try all again", "全部重试"),
    "dismiss": ("Close", "关闭"),
    # ---- documents
    "empty_here": (
        "Add documents under “Add”.",
        "请在“添加”中加入文档。",
    ),
    "filter_text": ("Search titles and file names", "搜索标题或文件名"),
    "filter_kind": ("All formats", "全部格式"),
    "no_match": ("No document matches.", "没有符合条件的文档。"),
    "choose_row": (
        "choose a row to see its passages",
        "选中一行即可查看其中的段落",
    ),
    "characters_n": ("{n} character|{n} characters", "{n} 字"),
    "characters_at": ("characters {start}–{end}", "第 {start}–{end} 字"),
    "show_in_document": ("show in the document", "在文档中查看"),
    "open_text": ("Open", "打开全文"),
    "read_again": ("Read again", "重新读取"),
    "read_again_help": (
        "Takes over what has changed in the file.",
        "如果文件有改动，会更新到知识库。",
    ),
    "file_gone": ("The file is not there any more.", "文件已不在原处。"),
    "remove": ("Remove", "移除"),
    "remove_text": (
        "Its passages go from the knowledge base, and the uploaded file with them.",
        "它的段落会从知识库中移除，上传的文件也会删除。",
    ),
    "remove_text_file": (
        "Its passages go from the knowledge base. The file itself stays.",
        "它的段落会从知识库中移除，原文件不受影响。",
    ),
    "remove_yes": ("Remove it", "确认移除"),
    "no_failures": ("Every file could be read.", "所有文件都已读取。"),
    "forget_failure": ("Take off the list", "从列表移除"),
    "forget_failure_help": (
        "Choose rows first. An uploaded file is deleted.",
        "请先选择行。上传的文件会被删除。",
    ),
    # ---- statistics
    "tile_documents": ("Documents", "文档"),
    "tile_passages": ("Passages", "段落"),
    "tile_characters": ("Characters", "字数"),
    "tile_failures": ("Not readable", "未能读取"),
    "tile_disk": ("On disk", "占用空间"),
    "embedder": ("Embedder", "向量模型"),
    "chart_kinds": ("Formats", "格式"),
    "chart_languages": ("Languages", "语言"),
    "chart_passages": ("Passages per document", "每份文档的段落数"),
    "check": ("Check", "检查"),
    "check_text": (
        "Derives everything again from the stored texts and compares. Nothing is changed.",
        "根据存储的原文重新推算全部内容并逐一比对，不会改动任何数据。",
    ),
    "check_now": ("Check everything", "全面检查"),
    "checking": ("Checking", "正在检查"),
    "checked": (
        "{documents} documents, {n} passage|{documents} documents, {n} passages",
        "{documents} 份文档，{n} 个段落",
    ),
    "check_fine": ("All is as it should be.", "一切正常。"),
    "check_wrong": (
        "{n} thing is not as it should be.|{n} things are not as they should be.",
        "发现 {n} 处问题。",
    ),
    # ---- map
    "map_question": (
        "Ask, and see where the answer lies",
        "输入问题，查看命中段落的位置",
    ),
    "map_text": (
        "{n} passage. What lies close together says something similar; the two directions are "
        "those in which the passages differ most.|{n} passages. What lies close together says "
        "something similar; the two directions are those in which the passages differ most.",
        "共 {n} 个段落。位置相近的段落内容相似；两个方向取自段落之间差异最大的方向。",
    ),
    "map_too_few": (
        "A map needs at least three passages.",
        "至少需要三个段落才能绘制分布图。",
    ),
    "map_no_hits": ("Nothing is found for this.", "没有找到相关段落。"),
    "map_passage": ("Passage", "段落"),
    "map_page": ("Page", "页码"),
    "map_hit": ("Rank", "名次"),
}
