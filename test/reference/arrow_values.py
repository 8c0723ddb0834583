"""Writes fixtures/arrow (one table of every type that is read, as file and stream, in the clear and compressed) and fixtures/jsonl.

    python test/reference/arrow_values.py      (pyarrow 21 or later)
"""

import datetime as dt
import decimal
from pathlib import Path

import pyarrow as pa

OUT = Path(__file__).parents[2] / "fixtures" / "arrow"
UTC = dt.timezone.utc


def column(values, type):
    return pa.array(values, type)


def table() -> pa.Table:
    text = ["a", None, "", "größer 😀", "e" * 300, "f"]
    binary = [b"\x00\x01", None, b"", b"\xff\xfe", b"x" * 100, b"z"]
    times = [dt.datetime(1969, 12, 31, 23, 59, 59, 999000, UTC), None, *[dt.datetime(2024, 2, 29, 12, 0, i, 5000, UTC) for i in range(4)]]
    days = [dt.date(1969, 12, 31), None, *[dt.date(2024, 2, 29)] * 4]
    numbers = [1, None, -3, 127, 0, 5]
    columns = {
        "id": column(range(6), pa.int32()),
        "int8": column(numbers, pa.int8()),
        "uint16": column([1, None, 65535, 0, 2, 3], pa.uint16()),
        "int64": column([2**53 + 1, None, -(2**63), 2**63 - 1, 0, 1], pa.int64()),
        "uint64": column([2**64 - 1, None, 0, 1, 2, 3], pa.uint64()),
        "half": column([1.5, None, -2.0, 0.0, 0.25, 3.0], pa.float16()),
        "float": column([1.5, None, -2.0, 0.0, 0.25, 3.0], pa.float32()),
        "double": column([0.1, None, -2.0, 1e300, 0.25, 3.0], pa.float64()),
        "bool": column([True, None, False, True, True, False], pa.bool_()),
        "text": column(text, pa.string()),
        "large_text": column(text, pa.large_string()),
        "binary": column(binary, pa.binary()),
        "large_binary": column(binary, pa.large_binary()),
        "fixed_binary": column([b"abc", None, b"def", b"ghi", b"\x00\x00\x00", b"xyz"], pa.binary(3)),
        "date32": column(days, pa.date32()),
        "date64": column(days, pa.date64()),
        "seconds": column([t and t.replace(microsecond=0) for t in times], pa.timestamp("s", "UTC")),
        "millis": column(times, pa.timestamp("ms", "UTC")),
        "micros": column(times, pa.timestamp("us")),
        "nanos": column(times, pa.timestamp("ns", "UTC")),
        "time32": column([1, None, 2, 3, 4, 5], pa.time32("s")),
        "time64": column([1, None, 2, 3, 4, 5], pa.time64("us")),
        "duration": column([1, None, -2, 3, 4, 5], pa.duration("ms")),
        "decimal": column([decimal.Decimal("1.25"), None, decimal.Decimal("-1.25"), *[decimal.Decimal("123456789012.01")] * 3], pa.decimal128(20, 2)),
        "list": column([[1, 2], None, [], [None, 4], [5], [6, 7, 8]], pa.list_(pa.int16())),
        "large_list": column([["a"], None, [], [None, "b"], ["c"], ["d"]], pa.large_list(pa.string())),
        "fixed_list": column([[1, 2], None, [3, 4], [5, None], [7, 8], [9, 10]], pa.list_(pa.float32(), 2)),
        "struct": column(
            [{"bytes": b"\x01", "path": "a.png"}, None, {"bytes": None, "path": "c"}, *[{"bytes": b"q", "path": None}] * 3],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        ),
        "nested": column(
            [[{"user": "q", "turns": [1]}], None, [], [{"user": None, "turns": []}], [{"user": "r", "turns": None}], []],
            pa.list_(pa.struct([("user", pa.string()), ("turns", pa.list_(pa.int64()))])),
        ),
        "map": column([[("a", 1)], None, [], [("b", None)], [("c", 3), ("d", 4)], [("e", 5)]], pa.map_(pa.string(), pa.int32())),
        "dictionary": pa.DictionaryArray.from_arrays(pa.array([0, None, 1, 1, 2, 0], pa.int8()), pa.array(["cat", "dog", "owl"])),
        "null": pa.nulls(6),
    }
    return pa.table(columns)


def write(name: str, data: pa.Table, compression=None, stream=False, rows=4) -> None:
    options = pa.ipc.IpcWriteOptions(compression=compression, emit_dictionary_deltas=True)
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(str(OUT / name), data.schema, options=options) as writer:
        writer.write_table(data, max_chunksize=rows)


OUT.mkdir(parents=True, exist_ok=True)
data = table()
write("values.arrow", data)
write("values-stream.arrow", data, stream=True)
write("values-lz4.arrow", data, compression="lz4")
write("values-zstd-stream.arrow", data, compression="zstd", stream=True)

# A stream whose dictionary grows, and is then another; a file's may only grow.
schema = pa.schema([("id", pa.int32()), ("label", pa.dictionary(pa.int8(), pa.string()))])


def labels(first, indices, words):
    ids = pa.array(range(first, first + len(indices)), pa.int32())
    label = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int8()), pa.array(words))
    return pa.record_batch([ids, label], schema=schema)


growing = [labels(0, [0, 1], ["a", "b"]), labels(2, [2, 0], ["a", "b", "c"])]
for name, make, batches in [
    ("deltas.arrow", pa.ipc.new_file, growing),
    ("replaced-stream.arrow", pa.ipc.new_stream, [*growing, labels(4, [0, 1], ["x", "y"]), labels(6, [1, 1], ["x", "y"])]),
]:
    with make(str(OUT / name), schema, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)) as writer:
        for batch in batches:
            writer.write_batch(batch)

# Views, which the library reads from Arrow 21 on.
views = pa.table({
    "text": pa.array(["short", None, "longer than twelve bytes", "größer"], pa.string_view()),
    "binary": pa.array([b"\x00", None, b"x" * 40, b""], pa.binary_view()),
})
write("views.arrow", views)

# What is not read, beside what is.
write("intervals.arrow", pa.table({"id": pa.array([1], pa.int32()), "wait": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}))

# A union of two kinds, and text that is none.
union = pa.UnionArray.from_dense(pa.array([0, 1, 0], pa.int8()), pa.array([0, 0, 1], pa.int32()), [pa.array([7, 8], pa.int32()), pa.array(["seven"])])
broken = pa.StringArray.from_buffers(3, pa.py_buffer(b"\x00\x00\x00\x00\x02\x00\x00\x00\x04\x00\x00\x00\x06\x00\x00\x00"), pa.py_buffer(b"ok\xff\xfeok"))
write("union-broken-text.arrow", pa.table({"either": union, "text": broken}))

# Batches to shuffle.
many = pa.table({"id": pa.array(range(30), pa.int32()), "blob": pa.array([f"blob {i}" for i in range(30)])})
write("many.arrow", many, rows=4)

# JSON lines as the zstd tool packs them.
lines = "".join(f'{{"id": {i}, "text": "row {i} of many"}}\n' for i in range(2000))
(OUT.parent / "jsonl").mkdir(exist_ok=True)
with pa.CompressedOutputStream(str(OUT.parent / "jsonl" / "rows.jsonl.zst"), "zstd") as out:
    out.write(lines.encode())

# Streams of batches that each replace the dictionary before.
word_schema = pa.schema([("id", pa.int32()), ("word", pa.dictionary(pa.int8(), pa.string()))])
for name, first, end in [("words-a.arrow", 0, 11), ("words-b.arrow", 11, 23)]:
    with pa.ipc.new_stream(str(OUT / name), word_schema) as writer:
        for at in range(first, end, 4):
            ids = list(range(at, min(at + 4, end)))
            words = pa.DictionaryArray.from_arrays(pa.array(range(len(ids)), pa.int8()), pa.array([f"word {i}" for i in ids]))
            writer.write_batch(pa.record_batch([pa.array(ids, pa.int32()), words], schema=word_schema))
