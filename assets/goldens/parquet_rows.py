"""Writes rows.parquet as a data set of Hugging Face has it: by Arrow, with lists of structs, nulls, times and snappy.

pip install pyarrow==26.0.1
python assets/goldens/parquet_rows.py
"""

import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

message = pa.struct([("role", pa.string()), ("content", pa.string()), ("tool_calls", pa.list_(pa.string()))])
schema = pa.schema([
    ("prompt", pa.string()),
    ("chosen", pa.list_(message)),
    ("rejected", pa.list_(message)),
    ("score_chosen", pa.float64()),
    ("score_rejected", pa.float64()),
    ("messages", pa.list_(message)),
    ("created", pa.timestamp("us")),
    ("labels", pa.struct([("name", pa.list_(pa.string())), ("value", pa.list_(pa.float64()))])),
])


def row(number, chosen, rejected):
    prompt = f"Question {number}"
    turn = lambda role, content: {"role": role, "content": content, "tool_calls": None}
    asked = turn("user", prompt)
    return {
        "prompt": prompt,
        "chosen": [asked, turn("assistant", f"good {number}")],
        "rejected": [asked, turn("assistant", f"bad {number}")],
        "score_chosen": chosen,
        "score_rejected": rejected,
        "messages": None,
        "created": datetime.datetime(2024, 1, 2, 3, 4, 5),
        "labels": {"name": ["quality"], "value": [0.5]},
    }


rows = [row(n, 8.0, 8.0 if n % 10 == 0 else 5.5) for n in range(1, 41)]
table = pa.Table.from_pylist(rows, schema=schema)
# Two groups of rows, as files that are larger have.
pq.write_table(table, Path(__file__).with_name("rows.parquet"), row_group_size=25, compression="snappy")
