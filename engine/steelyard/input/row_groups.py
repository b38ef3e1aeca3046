"""Row groups of a Parquet file -> batches of bounded bytes, however the file packs its rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from steelyard.core.arrow import offsets_of
from steelyard.errors import InputRefused
from steelyard.input.cells import coded_bytes
from steelyard.input.columns import NOTES
from steelyard.input.footer import INT96_UNIT, Footer
from steelyard.input.problems import printable
from steelyard.input.thrift import RowGroup

_GROWTH = 4
_BUFFER = 1 << 18  # bytes read ahead of each column
# What pyarrow 26 raises for more than 2 GiB of a nested column at once.
_NESTED = "Nested data conversions"
_TOO_LARGE = (pa.ArrowNotImplementedError, pa.ArrowCapacityError)


class Pace:
    """How many rows to ask for next, from what the rows before have taken.

    Args:
        first: rows to begin with.
        most: rows of a batch.
        size: bytes of a batch, to aim at.
    """

    def __init__(self, first: int, most: int, size: int) -> None:
        self.rows = min(first, most)
        self.size = size
        self._most = self._most_here = most

    def begin(self, rows: int, size: int) -> None:
        """Adapt to a row group of this many rows and bytes, most of which may be in a few rows."""
        fitting = max(1, self.size * rows // max(size, 1))
        self._most_here = min(_GROWTH * fitting, self._most)
        self.rows = min(self.rows, fitting)

    def seen(self, rows: int, size: int) -> None:
        """Adapt to what these rows have taken."""
        fitting = self.size * rows // max(size, 1)
        self.rows = max(1, min(fitting, self.rows * _GROWTH, self._most_here))

    def fail(self) -> bool:
        """Ask for fewer rows after these could not be decoded at once; False if it was one row."""
        fewer = max(1, self.rows // _GROWTH)
        self._most_here, self.rows, before = fewer, fewer, self.rows
        return before > 1


def read_group(
    file: pa.NativeFile, footer: Footer, number: int, columns: Collection[str], pace: Pace
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a row group; texts may be dictionaries, in some batches.

    Args:
        file: open file.
        footer: of the file.
        number: of the row group.
        columns: those to read.
        pace: how many rows to read at a time; the caller reports to it what rows have taken.

    Raises:
        InputRefused: a single row has more than 2 GiB in a nested column.
        pa.ArrowException: the data cannot be decoded.
        ValueError: there are fewer rows than the footer says.
    """
    group = footer.groups[number]
    stored = [*footer.schema.names, *([NOTES] if footer.noted else [])]
    names = [name for name in stored if name in columns]
    leaves = _leaves(footer, group, names)
    pace.begin(group.rows, sum(max(0, group.chunks[leaf].unpacked) for leaf in leaves))
    reader = pq.ParquetFile(
        file,
        metadata=footer.metadata,
        # Decoded, they may take far more than the file does: one text in a million rows. `_pieces`
        # has no more of them decoded at a time than there is room for.
        read_dictionary=[path for leaf, path in leaves.items() if _grows(group, leaf, pace)],
        pre_buffer=False,  # it would load whole row groups
        buffer_size=_BUFFER,
        coerce_int96_timestamp_unit=INT96_UNIT,
        page_checksum_verification=True,
    )
    chosen = None if len(names) == len(stored) else names
    seen = 0
    try:
        for batch in decode(reader, number, chosen, pace):
            seen += len(batch)
            yield batch
    except _TOO_LARGE as error:
        if pace.rows > 1 or _NESTED not in str(error):
            raise
        row = seen + sum(before.rows for before in footer.groups[:number])
        raise InputRefused(
            f"row {row} has more than 2 GiB in a nested column, which Arrow cannot read",
            place=printable(footer.source.name),
            effect="the rows before it can be read, and none after it",
            remedy="write the file again without that row",
        ) from error
    if seen != group.rows:
        rows = f"{seen:,} of the {group.rows:,} rows"
        raise ValueError(f"it holds {rows} that the footer promises")


def _leaves(footer: Footer, group: RowGroup, names: Collection[str]) -> dict[int, str]:
    """Return the leaf columns of these columns: number and path."""
    paths = (footer.metadata.schema.column(leaf).path for leaf in range(len(group.chunks)))
    return {
        leaf: path
        for leaf, path in enumerate(paths)
        if any(path == name or path.startswith(f"{name}.") for name in names)
    }


def _grows(group: RowGroup, leaf: int, pace: Pace) -> bool:
    """Return whether a column may take more memory than the file, and than a batch has."""
    return group.chunks[leaf].coded and group.chunks[leaf].unpacked * group.rows > pace.size


def decode(
    reader: pq.ParquetFile, group: int, columns: list[str] | None, pace: Pace
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a row group; it begins again where too many were asked for."""
    done, again = 0, True
    while again:
        position, again = 0, False
        try:
            for batch in reader.iter_batches(pace.rows, row_groups=[group], columns=columns):
                known = min(max(0, done - position), len(batch))
                position += len(batch)
                for piece in _pieces(batch.slice(known), pace.size):
                    done += len(piece)
                    yield piece
                # pyarrow looks at it before each batch: the one way to size them singly.
                reader.reader.set_batch_size(pace.rows)
        except _TOO_LARGE:
            again = pace.fail()
            if not again:
                raise


def _pieces(batch: pa.RecordBatch, size: int) -> Iterator[pa.RecordBatch]:
    """Cut a batch so that no piece but one row takes more than `size` bytes when it is decoded."""
    decoded = sum(map(coded_bytes, batch.columns), np.zeros(len(batch), dtype=np.int64))
    ends = offsets_of(decoded)
    begin = 0
    while begin < len(batch):
        fitting = int(np.searchsorted(ends, ends[begin] + size, "right")) - 1
        end = max(fitting, begin + 1)
        # A slice of lists keeps all of their items.
        whole = end - begin == len(batch)
        yield batch if whole else batch.take(pa.array(np.arange(begin, end)))
        begin = end
