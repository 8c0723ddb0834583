"""Images a second, and a second of processor time, that PIL decodes and torchvision resizes and rescales, as Gemma 3n's image processor does.

    python image.py FILE SIZE COUNT THREADS
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
data = Path(sys.argv[1]).read_bytes()
size, count, threads = (int(arg) for arg in sys.argv[2:])


def one(_):
    pixels = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    planes = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    return (F.resize(planes, [size, size], antialias=True) * (1 / 255)).shape


with ThreadPoolExecutor(threads) as pool:
    list(pool.map(one, range(max(8, count // 10))))
    begun, used = time.perf_counter(), time.process_time()
    list(pool.map(one, range(count)))
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - used
    print(json.dumps({"imagesPerSecond": count / seconds, "imagesPerCpuSecond": count / cpu_seconds}))
