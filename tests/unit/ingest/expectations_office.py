"""What a person sees in the shared test documents of the office formats.

Written down from the rendered pages, or from the XML inside, not from what the loaders give.
White space counts as one space. The second part says why a file cannot be read.
"""

from __future__ import annotations

PHRASES = {
    "corrupt-helloworld-bad.pdf": ["Hello, world!"],  # broken cross references, which PDFium mends
    "en-handbook-872p.docx": [
        "Executive Office for United States Trustees",
        "Handbook for Chapter 13 Standing Trustees",
        "1. an amount not to exceed the highest rate of basic pay in effect for level V",
        "must execute a Uniform Depository Agreement.",  # a footnote
        "The standing trustee must not allow remote access to the trustee’s computer system",
        "### 7. REVIEW OF CERTIFICATE OF CREDIT COUNSELING",
        "| 11 U.S.C. § 343 11 U.S.C. § 344 | Examination of the Debtor Self-incrimination;",
        "28 C.F.R. § 58.6 Procedures for Suspension and Termination",
    ],
    "en-multicolumn.pdf": [
        "Dense Passage Retrieval for Open-Domain Question Answering",
        "by a simple dual-encoder framework. When evaluated on a wide range of open-domain QA",
        "indicating the needs of improving retrieval.",
        # from the foot of the left column to the top of the right one
        "drops from above 80% to less than 40% (Yang et al., 2019a). Retrieval in open-domain QA",
        "function. Specifically, we obtain two initial sets of top-2000 passages based on BM25",
        "In contrast, Natural Questions and WebQuestions improve modestly",
        "score on NQ dev as in our regular reader model training.",
    ],
    "en-tamreview-2col.pdf": [
        "Overview of the Technology Acceptance Model: Origins, Developments and Future Directions",
        "It is concluded that research in TAM lacks sufficient rigor",
        "Kalle Lyytinen, Case Western Reserve University",
        "Email: admin@sprouts.aisnet.org",
    ],
    "fake.odt": [
        "Lorem ipsum dolor sit amet.",
        "| Header row | Mon | Wed | Fri | | --- | --- | --- | --- | | Color | Blue | Red | Green |",
        "| Leader | Sarah | Mark | Ryan |",
    ],
    "ko-tables.pdf": [
        "할인점·주유·온라인쇼핑몰 1.5% 빅포인트 적립",
        "할인점 이마트, 이마트 트레이더스, 롯데마트, 홈플러스",
        "편의점 CU, GS25, 세븐일레븐, 미니스톱",
        "* 전월 이용금액 40만원 이상 시 제공",
        "매월 1일부터 말일까지 이용한 일시불 및 할부 이용금액",
    ],
    "malformed.pptx": ["## Test Slide", "Problem Date Placeholder"],
    "markitdown.pptx": [
        "## AutoGen: Enabling Next-Gen LLM Applications via Multi-Agent Conversation Qingyun Wu",
        "Both natural language and 04191ea8-5c73-4215-a1d3-1cfb43aaaf12 can be used to program",
        "## A table to test parsing: | ColA | ColB | ColC | ColD | ColE | ColF |",
        "| 7 | 8 | 9 | 1b92870d-e3b5-4e65-8153-919f4ff45592 | 11 | 12 |",
        "## A chart to test parsing: a3f6004b-6f4f-4ea8-bee3-3741f4dc385f | | Series 1 |",
        "This is a nested shape with content in 2 shapes",
        "- Sub comment 2",
        "## These Test Strings are in the Image!",
    ],
    "tables.docx": [
        "Simple uniform table | Header Col 1 | Header Col 2 | | --- | --- |",
        "| Lorem ipsum | A link example |",
        "| a | >b< | c |",
        "| d | e f g&t h | i |",
        "Table with merged cells | a | b | |",
        "| | c | d |",
    ],
    "utf16.csv": [
        "Stanley Cups | Team | Location | Stanley Cups | | --- | --- | --- |",
        "| Maple Leafs | TOR | 13 |",
    ],
    "vodafone.xlsx": [
        "## Index Financial performance | Topic | Period | | Page |",
        "| Group financial performance | FY 22 | FY 23 | 2 |",
        "Operational metrics | Topic | Period | Page |",
        "| Mobile ARPU | Nine quarters to 30 June 2023 | 13 |",
        "| Guidance rates | FY 23/24 | 14 |",
    ],
    "zh-issues.csv": [
        "| | title | file | url | detail | id | | --- |",
        "| 0 | 效果如何优化 | 2023-04-04.00 |",
        "如图所示，将该项目的README.md和该项目结合后，回答效果并不理想",
        "| 63 | 参与开发问题 | 2023-04-27.01 |",
        "TypeError: The type of ChatGLM.callback_manager differs from the new default value;",
        "| 322 | [FEATURE] 支持AMD win10 本地部署吗？ | 2023-06-18.06 |",
    ],
    "zh-langchain.pdf": [
        "Creating Large Language Model Applications Utilizing LangChain: A Primer on Developing",
        "5 th International Conference on Applied Engineering and Natural Sciences",
        "Keywords – Large Language Models, LangChain, Concepts",
        "A.A.5 Question Answering from Documents",
        "the 'token' type imposes limitations contingent on the number of tokens.",
        "Vector stores: Helps to store and search over embedded data.",
        "Map reduce takes all the chunks, passes them along with the question",
        "[13] GitHub page for sample Jupyter Notebook page showcasing usage of LangChain framework",
    ],
    "zh-simfang-nonembedded.pdf": ["全世界无产者，联合起来"],
}

REASONS = {
    "derived-not-a-pdf.pdf": "corrupt: not a PDF: the file begins with '<html>login page</html>'",
    "derived-truncated.pdf": "corrupt: PDFium cannot open it; the file is damaged or cut off",
    "encrypted-password.pdf": "encrypted: the PDF needs a password; save it without one",
    "encrypted.xlsx": "encrypted: the document needs a password; save it without one",
    "legacy-simple.doc": "unsupported: files of this kind are read with LibreOffice: install it",
    "scan-loremipsum-flat.pdf": "no_text: scanned: none of 1 pages has text; OCR is not installed",
    "zero-bytes.pdf": "empty: the file has 0 bytes",
}

WARNINGS = {"en-tamreview-2col.pdf": "pages 2-22: garbled text left out; OCR is not installed"}

# What stands on every page, or nowhere on the page: page numbers, and headers after the first.
ABSENT = {"zh-langchain.pdf": ["1052", "1056"]}
