"""``samples.parquet``: one row per live sample, in slot order.

Laws: the file's bytes are a function of the rows (writer settings are fixed; the format's ``created_by`` names the
pyarrow version, which stands in the stage key). Columns about pixels are null where the image does not decode.
"""

import binascii
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SAMPLES = pa.schema(
    [
        ("slot", pa.uint32()),
        ("key", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("sha256", pa.string()),
        ("label", pa.uint16()),
        ("class", pa.string()),
        ("subset", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("mode", pa.string()),
        ("pixel_sha256", pa.string()),
        ("mean", pa.float64()),
        ("entropy", pa.float64()),
        ("phash", pa.uint64()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("decodable", pa.bool_()),
        ("error", pa.string()),
    ]
)
INDEX = pa.schema([("slot", pa.uint32()), ("label", pa.uint16())])
_REPEATING = ["shard", "class", "subset", "mode", "licence", "error"]


def write(path: Path, columns: dict[str, Any], schema: pa.Schema) -> None:
    """Write the columns, in the schema's order, uncompressed."""
    arrays = [pa.array(columns[field.name], type=field.type) for field in schema]
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=schema),
        path,
        version="2.6",
        data_page_version="1.0",
        compression="NONE",
        use_dictionary=[name for name in schema.names if name in _REPEATING],
        row_group_size=1 << 20,
        store_schema=False,
    )


def read(path: Path, columns: list[str] | None = None) -> pa.Table:
    """The table, or some of its columns."""
    return pq.read_table(path, columns=columns, use_threads=False)


def unhex(texts: pa.ChunkedArray) -> bytes:
    """The bytes that a column of hexadecimal texts means, row after row; none at all if one of them means none."""
    if not texts.num_chunks or texts.type != pa.string():
        return b""
    joined = pa.concat_arrays(texts.chunks)
    _, bounds, text = joined.buffers()
    first, last = np.frombuffer(bounds, np.int32)[[joined.offset, joined.offset + len(joined)]]
    try:
        return binascii.unhexlify(memoryview(text)[first:last])
    except ValueError:
        return b""
