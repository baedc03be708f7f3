"""Spreadsheets and delimited text become the tables a reader sees."""

from __future__ import annotations

import base64
import zlib

import pytest

from glm_rag_ingest.loaders.tables import markdown_rows, sheet_markdown

OLE = bytes.fromhex("d0cf11e0a1b11ae1")


def table(*rows):
    return sheet_markdown(lambda: iter(rows))


# ---------------------------------------------------------------- tables


def test_empty_columns_and_rows_are_left_out_and_bars_are_escaped():
    rows = [["a", "", "b|c"], ["", " ", ""], ["1", "", "x\ny"]]
    assert markdown_rows(rows, has_header=True) == "| a | b\\|c |\n| --- | --- |\n| 1 | x y |"


def test_lines_of_one_cell_above_a_table_are_its_title():
    assert table(["Prices", ""], ["Item", "Euro"], ["Tea", "3"]) == (
        "Prices\n\n| Item | Euro |\n| --- | --- |\n| Tea | 3 |"
    )


def test_a_first_row_of_values_is_no_header():
    assert table(["Tea", "3"], ["Milk", "2"]) == "| Tea | 3 |\n| Milk | 2 |"
    assert table(["Tea", "2024-01-05"], ["Milk", "x"]).count("---") == 0
    assert table(["a", "b", "", "", ""], ["1", "2", "3", "4", "5"]).count("---") == 0
    assert table(["Name", "2023", "2024"], ["Tea", "1", "2"]).count("---") == 3


def test_an_empty_row_does_not_cost_the_rows_below_their_header():
    rows = [["Name", "City"], ["Ann", "Rome"], [], ["Bob", "Oslo"], ["Eve", "Bonn"]]
    assert table(*rows).split("\n")[2:] == ["| Ann | Rome |", "| Bob | Oslo |", "| Eve | Bonn |"]


def test_a_second_table_below_keeps_its_own_title_and_header():
    rows = [["Name", "Age"], ["Ann", "31"], [], ["Towns"], ["Town", "Year"], ["Rome", "1"], []]
    more = [["Item", "Euro"], ["Tea", "3"]]
    assert table(*rows, *more).split("\n\n") == [
        "| Name | Age |\n| --- | --- |\n| Ann | 31 |",
        "Towns",
        "| Town | Year |\n| --- | --- |\n| Rome | 1 |",
        "| Item | Euro |\n| --- | --- |\n| Tea | 3 |",
    ]


def test_a_sheet_of_one_column_is_text():
    assert table(["One."], ["Two."], [], ["Three."]) == "One.\nTwo.\n\nThree."


# ---------------------------------------------------------------- delimited text


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(read, delimiter):
    rows = [["Name", "Fee"], ["Ann", "1"], ["Bob", "2"]]
    text = read("a.csv", "\n".join(delimiter.join(row) for row in rows)).text
    assert text == "| Name | Fee |\n| --- | --- |\n| Ann | 1 |\n| Bob | 2 |"


def test_cells_hold_line_feeds_quotes_and_delimiters(read):
    text = read("a.csv", 'Name,Note\r\nAnn,"two\r\nlines, ""quoted"""\r\nBob,x\r\n').text
    assert '| Ann | two lines, "quoted" |' in text


def test_decimal_commas_do_not_beat_the_semicolon(read):
    text = read("a.csv", "Name;Preis;Menge\nTee;1,5;2\nKaffee;2,5;3\n").text
    assert "| Tee | 1,5 | 2 |" in text


def test_a_stated_delimiter_is_obeyed_and_left_out(read):
    assert read("a.csv", "sep=;\nA;B\nx,y,z;2\n").text.startswith("| A | B |\n")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030", "utf-16"])
def test_chinese_delimited_text_reads_in_every_encoding(read, encoding):
    rows = "姓名,部门,电话\n" + "张伟,我们的人事部,分机八零二\n" * 5
    assert "| 张伟 | 我们的人事部 | 分机八零二 |" in read("a.csv", rows.encode(encoding)).text


@pytest.mark.parametrize(
    "text",
    [
        "One line.\nAnother, with a comma.\nThird.",
        "id\n1\n2",
        "a,b",
        "Dear all,\nthis is, well,\na letter,\nwith, many, commas,\nand so, on.",
    ],
)
def test_what_is_no_table_stays_text(read, text):
    assert read("a.csv", text).text == text


def test_a_huge_cell_is_read(read):
    assert len(read("a.csv", f"a,b\n1,{'x' * 200_000}\n").text) > 200_000


# ---------------------------------------------------------------- spreadsheets


def workbook(make_zip, sheets):
    """Bytes of an .xlsx file: sheet name -> XML of its rows."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    rel = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    listed = "".join(
        f'<sheet name="{name}" sheetId="{i}" r:id="rId{i}"/>' for i, name in enumerate(sheets, 1)
    )
    related = "".join(
        f'<Relationship Id="rId{i}" Type="{rel}/worksheet" Target="worksheets/s{i}.xml"/>'
        for i in range(1, len(sheets) + 1)
    )
    styles = f'<Relationship Id="rId99" Type="{rel}/styles" Target="styles.xml"/>'
    root = f'<Relationship Id="rId1" Type="{rel}/officeDocument" Target="xl/workbook.xml"/>'
    formats = "".join(f'<xf numFmtId="{i}"/>' for i in (0, 14, 22, 21))
    return make_zip(
        {
            "[Content_Types].xml": "<Types/>",
            "_rels/.rels": f'<Relationships xmlns="{package}">{root}</Relationships>',
            "xl/workbook.xml": (
                f'<workbook xmlns="{main}" xmlns:r="{rel}"><sheets>{listed}</sheets></workbook>'
            ),
            "xl/_rels/workbook.xml.rels": (
                f'<Relationships xmlns="{package}">{related}{styles}</Relationships>'
            ),
            "xl/styles.xml": (
                f'<styleSheet xmlns="{main}"><cellXfs>{formats}</cellXfs></styleSheet>'
            ),
            **{
                f"xl/worksheets/s{i}.xml": (
                    f'<worksheet xmlns="{main}"><sheetData>{rows}</sheetData></worksheet>'
                )
                for i, rows in enumerate(sheets.values(), 1)
            },
        }
    )


def row(number, *cells):
    """Strings as text, numbers as they are, (number, style) for dates and times."""
    xml = ""
    for column, cell in zip("ABCDEFGH", cells, strict=False):
        value, style = cell if isinstance(cell, tuple) else (cell, 0)
        if isinstance(value, str):
            inner = f"<is><t>{value}</t></is>"
            xml += f'<c r="{column}{number}" t="inlineStr">{inner}</c>'
        elif value is not None:
            kind = ' t="b"' if isinstance(value, bool) else ""
            shown = int(value) if kind else value
            xml += f'<c r="{column}{number}" s="{style}"{kind}><v>{shown}</v></c>'
    return f'<row r="{number}">{xml}</row>'


def test_every_sheet_is_a_heading_with_its_table(read, make_zip):
    sheets = {
        "Fees": row(2, "Item", "Euro") + row(3, "Tea", 3.0) + row(4, "Milk", 0.1 + 0.2),
        "Empty": "",
        "员工": row(1, "姓名", "入职", "在职")
        + row(2, "张伟", (45292, 1), True)
        + row(3, "李娜", (45292.5, 2), False)
        + row(4, "王芳", (45292, 2), None),
    }
    assert read("a.xlsx", workbook(make_zip, sheets)).text == (
        "## Fees\n\n| Item | Euro |\n| --- | --- |\n| Tea | 3 |\n| Milk | 0.3 |\n\n"
        "## 员工\n\n| 姓名 | 入职 | 在职 |\n| --- | --- | --- |\n"
        "| 张伟 | 2024-01-01 | TRUE |\n| 李娜 | 2024-01-01 12:00:00 | FALSE |\n"
        "| 王芳 | 2024-01-01 |  |"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1e21, "1e+21"),
        (123456789012345.0, "123456789012345"),
        (-2.5, "-2.5"),
        (1 / 3, "0.333333333333333"),
    ],
)
def test_numbers_have_no_noise(read, make_zip, value, shown):
    sheets = {"S": row(1, "a", "b") + row(2, "x", value)}
    assert f"| x | {shown} |" in read("a.xlsx", workbook(make_zip, sheets)).text


def test_a_spreadsheet_that_cannot_be_read_says_why(reason_of, make_zip, monkeypatch):
    from glm_rag_ingest.loaders import excel

    good = workbook(make_zip, {"S": row(1, "a", "b") + row(2, "x", 1)})
    assert reason_of("a.xlsx", good[: len(good) // 2]) == "corrupt"
    assert reason_of("b.xlsx", b"no zip") == "corrupt"
    assert reason_of("c.xls", OLE + bytes(2048)) == "corrupt"
    assert reason_of("d.xlsx", OLE + "EncryptedPackage".encode("utf-16-le")) == "encrypted"
    assert reason_of("e.xlsx", workbook(make_zip, {"S": ""})) == "empty"
    manifest = "<manifest><encryption-data/></manifest>"
    assert reason_of("f.ods", make_zip({"META-INF/manifest.xml": manifest})) == "encrypted"
    monkeypatch.setattr(excel, "_MOST_CELLS", 3)
    assert reason_of("g.xlsx", good) == "unsupported"


def test_an_opendocument_spreadsheet_is_read(read, make_zip):
    ns = "urn:oasis:names:tc:opendocument:xmlns"
    names = " ".join(f'xmlns:{n}="{ns}:{n}:1.0"' for n in ("office", "table", "text"))
    cell = '<table:table-cell office:value-type="string"><text:p>{}</text:p></table:table-cell>'
    number = '<table:table-cell office:value-type="float" office:value="3"/>'
    rows = (
        f"<table:table-row>{cell.format('Item')}{cell.format('Euro')}</table:table-row>"
        f"<table:table-row>{cell.format('Tea')}{number}</table:table-row>"
    )
    content = (
        f"<office:document-content {names}><office:body><office:spreadsheet>"
        f'<table:table table:name="Fees">{rows}</table:table>'
        "</office:spreadsheet></office:body></office:document-content>"
    )
    kind = "application/vnd.oasis.opendocument.spreadsheet"
    data = make_zip({"mimetype": kind, "META-INF/manifest.xml": "<m/>", "content.xml": content})
    assert read("a.ods", data).text == "## Fees\n\n| Item | Euro |\n| --- | --- |\n| Tea | 3 |"


# An old Excel file, written by xlwt and compressed: a sheet 费用 with text, numbers and dates.
XLS = (
    "c-"
    "rk)O=uHA6#izjX?{raXDYNp2?cBI&q2KCp<NYf@nESx;9o)0W)Gz%k);)?2dg#5g5XK<Qm6+nQ7`_Wf<G4zL"
    "PZaPAS8P9Bq(@jv%Y!Rt!b^$fEKFrg?aPl&3rpA`)1zk?(4Z&aprDQ3Cqv}56X4`byYS&CEzxqpnltys$2W1"
    "*b3_k0Y3$@&WlI&uY59wGTtR<xT8NK34Ek7h%@NVWzFOoVh{U}64Hlmk^(o#5=J9?6=yljas$iTJn}KiU2K_"
    "V*-c}M;yC7v{`MWtDn6>Ua9<emy7!s$o-"
    "NzZfR}O=U$`PFW4+jIjigSmvyNsxgjrBP`^>Cq$#w)c5d<a(U71W*I$cD9f<23Gb`tpN?&_yWWnWvn0NKAUw"
    "flZ!_frs;+plUmFbVq<Z<0Jhi0iUP6FaBd#^=#NYXV%zyl>3RP}Mtb<;ZeqBs*++fWu~rxF@W$$AU7$b4G|R"
    "$q4nlQ$i%uh_D{x{SqaY=5Kv@vwvv7ILVetJ_Rag#b)UmY+RHKB8R!hvnbn{(ZTW(Uv(4fO)L}SG}WyG4UV#"
    "RipN~$-d37tJL9dfrAlujJ^%T@gXa7vV=L)}zS6lw;hiyq7CO7q#FxJ*bc#-"
    "K{hGu>!>xsrS3a<8{3XZuwW#B}?Hq^^EXZ9&h_S4+<lPaAEzP-Ck}XzX3uepv@r33V%s%gxIqvxjjhK?Bt-"
    "#Zmr#rk#OoE&n3(V`$;<zUVQ9k^MAQTi76ciK`6cqkv2!2AXJdf+ni-LUO_c`Bn7O0ffXOe#w2a%)S7`;^XB"
    "1^S}iJI2WMtFsLEwM_D`@K-&2+eL`6hrLCXwB=F-h4#$|5-IL`scP#t@D>_@$)aw{{z`Q*Qx"
)


def test_an_old_spreadsheet_is_read(read):
    data = zlib.decompress(base64.b85decode(XLS))
    assert data.startswith(OLE)
    assert read("a.xls", data).text == (
        "## 费用\n\n| Item | Euro | Since |\n| --- | --- | --- |\n"
        "| Tea | 3.5 | 2024-01-05 |\n| 牛奶 | 2 | 2023-12-31 |"
    )
