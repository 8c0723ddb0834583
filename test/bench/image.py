"""Images a second, and a second of processor time, that PIL decodes and torchvision resizes and rescales, as Gemma 3n's image
processor does. Reads jobs from stdin, {"file", "size", "count", "threads"} a line, and answers each with a line.
"""
import io
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

torch.set_num_threads(1)


def pixel_values(data, size):
    pixels = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    planes = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    return F.resize(planes, [size, size], antialias=True) * (1 / 255)


def measure(file, size, count, threads):
    data = Path(file).read_bytes()
    with ThreadPoolExecutor(threads) as pool:
        run = lambda number: list(pool.map(lambda _: pixel_values(data, size).shape, range(number)))
        run(max(8, count // 10))
        begun, used = time.perf_counter(), time.process_time()
        run(count)
        seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - used
    return {"imagesPerSecond": count / seconds, "imagesPerCpuSecond": count / cpu_seconds}


for line in sys.stdin:
    print(json.dumps(measure(**json.loads(line))), flush=True)
