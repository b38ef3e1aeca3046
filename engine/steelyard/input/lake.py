"""Delta Lake tables -> the rows of their newest version, by their log (extra `lake`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from steelyard.errors import InputRefused, escape
from steelyard.input.arrow_rows import Batches, storable

LOG = "_delta_log"


def is_delta(path: str) -> bool:
    """Return whether a folder is the root of a Delta Lake table."""
    return next(Path(path, LOG).glob("*"), None) is not None


class DeltaRows:
    """The newest version of a table, as it is when this is made.

    Raises:
        InputRefused: `deltalake` is not installed, or cannot read this table.
    """

    def __init__(self, path: str, refused: InputRefused) -> None:
        try:
            from deltalake import DeltaTable
        except ImportError:
            refused.remedy = f"pip install 'steelyard[lake]', or {refused.remedy}"
            raise refused from None
        self._path = path
        try:
            self._table: Any = DeltaTable(Path(path).absolute().as_uri())
            self._data: Any = self._table.to_pyarrow_dataset()
        except Exception as error:  # the library raises what its parts raise
            raise self._damaged(error) from None

    @property
    def state(self) -> str:
        """What decides the rows: files are never written again."""
        files = sorted(map(str, self._data.files))
        return repr((self._table.metadata().id, self._table.version(), files))

    def batches(self) -> Batches:
        """Return columns and rows, in the order of the files' names."""
        schema = self._data.schema
        return storable(schema), self._rows(schema)

    def _rows(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        try:
            for part in sorted(self._data.get_fragments(), key=lambda part: str(part.path)):
                for batch in part.to_batches(schema=schema):
                    yield batch.select(schema.names)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> InputRefused:
        first = str(error).partition("\n")[0] or type(error).__name__
        return InputRefused(
            f"the table of Delta Lake cannot be read: {escape(first, 200)}",
            place=escape(self._path, 300),
            remedy="write its current rows to Parquet, and name that file",
        )
