"""Rows of a Parquet file a second, as Python objects. Arguments: file, rounds. Prints {"seconds": [...]}."""

import json
import sys
import time

import pyarrow.parquet as pq

file, rounds = sys.argv[1], int(sys.argv[2])
seconds = []
for _ in range(rounds + 1):
    begun = time.perf_counter()
    count = 0
    for batch in pq.ParquetFile(file).iter_batches():
        for _row in batch.to_pylist():
            count += 1
    seconds.append(time.perf_counter() - begun)
print(json.dumps({"seconds": seconds[1:], "rows": count}))
