"""``samples.parquet``: one row per live sample, in slot order.

Laws: the file's bytes are a function of the rows (writer settings are fixed; the format's ``created_by`` names the
pyarrow version, which stands in the stage key). Columns about pixels are null where the image does not decode.
"""

from pathlib import Path
from typing import Any

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
