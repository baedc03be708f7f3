"""What a person sees in the sample files of text, mail and books.

Written down from `less`, `iconv`, `unzip -p` and `strings`, not from what the loaders gave.
"""

# File -> phrases from its beginning, middle and end.
PHRASES = {
    "attachment.msg": (
        "Subject: Fake email with attachment",
        "From: Mallori Harrell <mallori@unstructured.io>",
        "Fri, 23 Dec 2022 12:08:48 -0600",
        "Here's the attachments!",
        "- Lots of whitespace",
        "Best, Mallori",
    ),
    "cp1252.html": (
        "# My First Heading",
        "Some text with CP1252-specific characters:",
        "Die schöne Frau hat einen Kaffee mit Kuchen gegessen.",
        "Der Preis betrug 15,50 €.",
        'Vill du ha mer?"',
        'Het kind vroeg: "Mag ik ook wat?"',
    ),
    "derived-gbk-nometa.html": (
        "ChatGPT是OpenAI开发的一个大型语言模型，可以提供各种主题的信息",
        "我很高兴欢迎您阅读我的最新书籍",
        "这种技术对于生成针对特定上下文或受众的文本非常有用。",
        "**生成客户服务回复：**",
    ),
    "derived-gbk.txt": (
        "如何向 ChatGPT 提问以获得高质量答案：提示技巧工程完全指南",
        "当任务只有有限数量的示例可用时，使用少样本提示技术。",
        "请以中立和公正的语气摘要以下新闻文章",
    ),
    "derived-utf16le-bom.txt": (
        "ChatGPT是OpenAI开发的一个大型语言模型",
        "按照以下指示生成专业且准确的客户查询响应",
        "指令：文件应符合相关法律法规",
        "请以中立和公正的语气摘要以下新闻文章",
    ),
    "en-10k.html": (
        "Galaxy Gaming, Inc.",
        "Our long-term business strategy focuses on increasing our value to casino clients",
        "producing innovative products and game play methodologies that their players enjoy",
        "Todd P. Cravens, CEO",
        "Cheryl A. Kondra",
    ),
    "eng_spa.rtf": (
        "All human beings are born free and equal in dignity and rights.",
        "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como "
        "están de razón y conciencia",
        "deben comportarse fraternalmente los unos con los otros.",
    ),
    "no-utf8.eml": (
        "Subject: Google Account password changed",
        "From: no-reply@accounts.google.com",
        "To: slatest@gmail.com",
        "The password for your Google Account",
        "To fix an issue or learn more about your account, visit our help center:",
        "(c) 2014 Google Inc., 1600 Amphitheatre Parkway, Mountain View, CA 94043, USA",
    ),
    "udhr-all-languages.txt": (
        "Universal Declaration of Human Right - First article, all languages",
        "是人都生而自由，在尊严和权利上一律平等。",
        "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
        "人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心",
        "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
        "Bonke abantu bazalwa bekhululekile belingana ngesithunzi nangamalungelo.",
    ),
    "war-and-peace.txt": (
        '"Well, Prince, so Genoa and Lucca are now just family estates of the Buonapartes.',
        "Anna Pavlovna had had a cough for some days.",
        "Every act of theirs, which appears to them an act of their own will, is in an historical "
        "sense involuntary",
        "to recognize a dependence of which we are not conscious.",
    ),
    "winter-sports.epub": (
        "The Project Gutenberg eBook of Winter Sports in Switzerland, by E. F. Benson",
        "# WINTER SPORTS IN SWITZERLAND",
        "this stroke, which at one time played a considerable part in English skating",
        "the curler is strongly advised to let this forward swing of his arm and body work itself "
        "out in the natural follow-through",
        "I should freeze with terror if told that I had to go over even a very mild ski-jump",
        "how to subscribe to our email newsletter to hear about new eBooks.",
    ),
    "with-image.eml": (
        "From: Mallori Harrell <mallori@unstructured.io>",
        "Date: Wed, 4 Jan 2023 11:36:14 -0600",
        "The unstructured logo is attached to this email.",
        "Unstructured Technologies Data Scientist",
    ),
    "zh-readme.md": (
        "**LangChain-Chatchat** (原 Langchain-ChatGLM)",
        "基于 ChatGLM 等大语言模型与 Langchain 等应用框架实现",
        "本项目中已经支持市面上主流的如 [GLM-4-Chat]",
        "| 加速推理引擎 | GPTQ, GGML, vLLM, TensorRT, mlx |",
        "howpublished = {\\url{https://github.com/chatchat-space/Langchain-Chatchat}}",
    ),
    "zh-test.txt": (
        "ChatGPT是OpenAI开发的一个大型语言模型，可以提供各种主题的信息，",
        "提示公式：“基于[数量]个示例生成文本”",
        "幅名画吗？你怎么把它照抄了一遍？",
        "《如何向ChatGPT提问并获得高质量的答案》",
    ),
}
# Attachments and other members: file -> {path inside: phrase}.
MEMBERS = {
    "attachment.msg": {"fake-attachment.txt": "Hey this is a fake attachment!"},
    "with-image.eml": {},
    "no-utf8.eml": {},
    "winter-sports.epub": {},
}
TITLES = {
    "attachment.msg": "Fake email with attachment",
    "no-utf8.eml": "Google Account password changed",
    "winter-sports.epub": "Winter Sports in Switzerland",
    "derived-gbk-nometa.html": "制度",
    "zh-test.txt": "zh-test.txt",
}
# What must not be in the text: markup, scripts, bytes of another encoding.
ABSENT = {
    "eng_spa.rtf": ("\\par", "Times New Roman", "fcharset", "Colorful Shading"),
    "winter-sports.epub": ("<p", "<div", "pgepub.css"),
    "en-10k.html": ("text-indent", "xmlns:"),
    "with-image.eml": ("gmail_signature", "iVBORw0KGgo"),
    "no-utf8.eml": ("DKIM-Signature", "iVBOR"),
}
REASONS = {"empty.txt": "empty", "derived-not-a-pdf.pdf": "corrupt"}
