"""Every real file of the test data goes in, or is listed with its reason."""

from __future__ import annotations

from counted import counts

from glm_rag_ingest.pipeline import ingest

READABLE = {
    "attachment.msg": "Here's the attachments!",
    "eng_spa.rtf": "All human beings are born free and equal",
    "no-utf8.eml": "Subject: Google Account password changed",
    "winter-sports.epub": "# WINTER SPORTS IN SWITZERLAND",
    "with-image.eml": "Subject:",
    "corrupt-helloworld-bad.pdf": "Hello, world!",
    "cp1252.html": "Die schöne Frau hat einen Kaffee",
    "derived-gbk-nometa.html": "ChatGPT是OpenAI开发的一个大型语言模型",
    "derived-gbk.txt": "如何向 ChatGPT 提问以获得高质量答案",
    "derived-utf16le-bom.txt": "如何向 ChatGPT 提问以获得高质量答案",
    "en-10k.html": "Cash and cash equivalents | $ | 16,058,714",
    "en-handbook-872p.docx": "Handbook for",
    "en-multicolumn.pdf": "Dense Passage Retrieval for Open-Domain Question Answering",
    "en-tamreview-2col.pdf": "Overview of the Technology Acceptance Model",
    "fake.odt": "| Leader | Sarah | Mark | Ryan |",
    "ko-tables.pdf": "커피전문점",
    "malformed.pptx": "Problem Date Placeholder",
    "markitdown.pptx": "| 1 | 2 | 3 | 4 | 5 | 6 |",
    "tables.docx": "| Header Col 1 | Header Col 2 |",
    "udhr-all-languages.txt": "是人都生而自由，在尊严和权利上一律平等",
    "utf16.csv": "| Maple Leafs | TOR | 13 |",
    "vodafone.xlsx": "| Guidance rates | FY 23/24 | 14 |",
    "war-and-peace.txt": "Well, Prince, so Genoa and Lucca",
    "zh-issues.csv": "| 63 | 参与开发问题 |",
    "zh-langchain.pdf": "Creating Large Language Model Applications",
    "zh-readme.md": "## 功能介绍",
    "zh-simfang-nonembedded.pdf": "全世界无产者，联合起来",
    "zh-test.txt": "如何向 ChatGPT 提问以获得高质量答案",
}
UNREADABLE = {
    "derived-not-a-pdf.pdf": "corrupt",
    "derived-truncated.pdf": "corrupt",
    "empty.txt": "empty",
    "encrypted-password.pdf": "encrypted",
    "encrypted.xlsx": "encrypted",
    "legacy-simple.doc": "unsupported",
    "scan-loremipsum-flat.pdf": "no_text",
    "zero-bytes.pdf": "empty",
}


def test_every_real_file_is_searchable_or_listed_with_its_reason(kb, test_data):
    folder = test_data / "documents"
    report = ingest(folder, kb)
    reasons = {f.source.rsplit("/", 1)[1]: f.error.partition(":")[0] for f in report.failures}
    assert reasons == UNREADABLE
    assert counts(report) == (len(READABLE), 0, 0, 0, len(UNREADABLE))
    for name, passage in READABLE.items():
        source = (folder / name).resolve().as_uri()
        start = kb.get_text(source).index(passage)
        inside = [
            chunk
            for chunk in kb.get_chunks(source)
            if chunk.metadata["start"] <= start < chunk.metadata["end"]
        ]
        assert inside, name
    garbled = "en-tamreview-2col.pdf: pages 2-22: garbled text left out; OCR"
    assert [warning for warning in report.warnings if warning.startswith(garbled)]
    assert kb.verify().findings == ()
    assert counts(ingest(folder, kb)) == (0, 0, 36, 0, 0)
