"""Spreadsheets (.xlsx, .xls, .ods and kin): every sheet a heading and its tables."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from glm_rag.errors import MissingDependencyError
from glm_rag_ingest.loaders.base import Extracted, clean_text, failure
from glm_rag_ingest.loaders.office import OLE_MAGIC, check_archive, encrypted, is_encrypted
from glm_rag_ingest.loaders.tables import sheet_markdown

if TYPE_CHECKING:
    from python_calamine import CalamineSheet, CalamineWorkbook

VERSION = "excel/1"
MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
SUFFIXES = (".ods", ".xls", ".xlsb", ".xlsm", ".xlsx")

_DIGITS = 15  # what a 64-bit float holds; more is noise
_MOST_CELLS = 50_000_000  # of one sheet, empty ones included


def extract(data: bytes) -> Extracted:
    """Cell values as they were last computed; hidden sheets too, charts and pictures not.

    Raises:
        DocumentError: `encrypted`, `corrupt`, `empty`, or `unsupported` for what is too large.
    """
    try:
        import python_calamine
    except ImportError as error:
        raise MissingDependencyError.for_extra("python-calamine", "documents") from error
    if is_encrypted(data):
        raise encrypted()
    if not data.startswith(OLE_MAGIC):
        check_archive(data, ".xlsx")
    try:
        workbook = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
    except python_calamine.PasswordError as error:
        raise encrypted() from error
    except python_calamine.CalamineError as error:
        raise failure("corrupt", f"the spreadsheet is damaged ({error})") from error
    with workbook:
        return _read(workbook)


def _read(workbook: CalamineWorkbook) -> Extracted:
    import python_calamine

    parts: list[str] = []
    warnings: list[str] = []
    for meta in workbook.sheets_metadata:
        if meta.typ != python_calamine.SheetTypeEnum.WorkSheet:
            continue
        try:
            table = _sheet(workbook.get_sheet_by_name(meta.name))
        except python_calamine.CalamineError as error:
            warnings.append(f"sheet {meta.name}: damaged, left out ({error})")
            continue
        if table:
            parts.append(f"## {' '.join(meta.name.split())}\n\n{table}")
    if not parts and warnings:
        raise failure("corrupt", f"no sheet can be read; {warnings[0]}")
    return Extracted(clean_text("\n\n".join(parts)), warnings=tuple(warnings))


def _sheet(sheet: CalamineSheet) -> str:
    if sheet.height * sheet.width > _MOST_CELLS:
        detail = f"sheet {sheet.name} has more than {_MOST_CELLS:,} cells; split it"
        raise failure("unsupported", detail)

    def rows() -> Iterator[list[str]]:
        return ([_shown(value) for value in row] for row in sheet.iter_rows())

    return sheet_markdown(rows)


def _shown(value: Any) -> str:
    """A cell as a reader sees it: ISO dates, numbers without the noise of binary fractions."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else _number(value)
    if isinstance(value, dt.datetime):  # midnight comes as a date
        return value.isoformat(" ", "seconds")
    if isinstance(value, dt.time):
        return value.isoformat("seconds")
    return str(value)


def _number(value: float) -> str:
    return format(value, f".{_DIGITS}g")
