"""Other people's tables: files and data frames, ids, numbers and times, each read by one function for all commands."""

from deshi.tables._delimited import Malformed
from deshi.tables.codes import code_texts, coded_ids, new_codes
from deshi.tables.frames import to_polars
from deshi.tables.id_lists import IdLists, id_lists
from deshi.tables.reading import (
    FIELD_TYPES,
    Table,
    TableFile,
    TableFormat,
    column_names,
    first_line_is_data,
    iterate_records,
    open_table,
    read_lines,
    read_table,
    require_columns,
    sibling_hint,
    table_kind,
    untyped,
)
from deshi.tables.times import manifest_unit, to_order, to_timestamps
from deshi.tables.values import check_scalars, id_text, ids, numbers, text_of

__all__ = [
    "FIELD_TYPES", "IdLists", "Malformed", "Table", "TableFile", "TableFormat", "check_scalars", "code_texts",
    "coded_ids", "column_names", "first_line_is_data", "id_lists", "id_text", "ids", "iterate_records",
    "manifest_unit", "new_codes", "numbers", "open_table", "read_lines", "read_table", "require_columns",
    "sibling_hint", "table_kind", "text_of", "to_order", "to_polars", "to_timestamps", "untyped",
]  # fmt: skip
