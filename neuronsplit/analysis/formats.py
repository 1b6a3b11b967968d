"""Tables as bytes: Parquet with what produced it inside, and CSV. Nothing in them is executed.

Parquet's own checksums cover the data, but neither the names of columns nor what produced them. Therefore the metadata
hold a checksum of all bytes, which was computed with zeros in its own place.
"""

import gzip
import json
import re
from hashlib import sha256
from io import BytesIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from neuronsplit.names import EXPERIMENT, TEXT_COLUMNS

_KEY = b"neuronsplit"  # of the provenance in the metadata
_CHECKSUM = re.compile(rb"neuronsplit-sha256:([0-9a-f]{64})")
_NO_CHECKSUM = b"neuronsplit-sha256:" + b"0" * 64
_MISSING = ["", "NA", "N/A", "<NA>", "NaN", "nan", "NULL", "null", "None"]  # in columns of a CSV that are not text
_INDEX = re.compile(r"Unnamed: \d+|__index_level_\d+__")  # the names of an index that pandas saved with a table


def to_parquet(table: pd.DataFrame, provenance: dict) -> bytes:
    """Return a table as a Parquet file, without its index. Every number keeps all its digits."""
    metadata = {_KEY: json.dumps(provenance).encode(), _KEY + b".checksum": _NO_CHECKSUM}
    arrow, sink = pa.Table.from_pandas(table, preserve_index=False), pa.BufferOutputStream()
    noisy = [field.name for field in arrow.schema if pa.types.is_float32(field.type)]  # values that hardly repeat
    others = [name for name in arrow.column_names if name not in noisy]
    options = {"use_byte_stream_split": noisy, "use_dictionary": others, "compression": "zstd"}  # a third smaller
    pq.write_table(arrow.replace_schema_metadata(metadata), sink, **options)
    data = sink.getvalue().to_pybytes()
    return data.replace(_NO_CHECKSUM, b"neuronsplit-sha256:" + sha256(data).hexdigest().encode())


def from_parquet(data: bytes) -> tuple[pd.DataFrame, dict]:
    """Return the table and the provenance in the bytes of a Parquet file, {} for one of another program.

    Raises ValueError, OSError or pyarrow's ArrowException where they are damaged.
    """
    checksum = _CHECKSUM.search(data)
    if checksum and sha256(data.replace(checksum[0], _NO_CHECKSUM)).hexdigest().encode() != checksum[1]:
        raise ValueError("wrong checksum")  # nothing of it is parsed
    arrow = pq.ParquetFile(pa.BufferReader(data)).read()
    metadata = arrow.schema.metadata or {}
    if _KEY in metadata and not checksum:
        raise ValueError("no checksum")
    if len(set(arrow.column_names)) < arrow.num_columns:
        raise ValueError("two columns of the same name")
    table = arrow.to_pandas(ignore_metadata=True)  # what pandas notes there is not the same in all its versions
    for field, column in zip(arrow.schema, arrow.columns):
        if pa.types.is_integer(field.type) and column.null_count:
            table[field.name] = pd.array(column.to_pylist(), "Int64")
    provenance = json.loads(metadata.get(_KEY, b"{}"))
    if not isinstance(provenance, dict):
        raise ValueError("unknown provenance")
    return _typed(table), provenance


def from_csv(data: bytes) -> pd.DataFrame:
    """Return the table in the bytes of a CSV file, which may be packed by gzip.

    Raises ValueError, OSError, EOFError or zlib.error where they are damaged.
    """
    if data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
    names = pd.read_csv(BytesIO(data), nrows=0).columns
    types = {name: str for name in names if name in TEXT_COLUMNS} | {"split_neuron": "string"}
    missing = {name: _MISSING for name in names if name not in TEXT_COLUMNS}
    return _typed(pd.read_csv(BytesIO(data), dtype=types, na_values=missing, keep_default_na=False))


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose text is text, also where another program has saved it."""
    table = table[[name for name in table if not _INDEX.fullmatch(name)]]
    if "split_neuron" in table:  # another program reads 3 as a number among missing values, and writes 3.0
        table = table.assign(split_neuron=table["split_neuron"].astype("string").str.removesuffix(".0"))
    return table.astype({name: str for name in (EXPERIMENT, *TEXT_COLUMNS) if name in table})
