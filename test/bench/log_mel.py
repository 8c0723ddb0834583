"""Clips a second, and a second of processor time, that transformers' Gemma3nAudioFeatureExtractor takes, one clip a call.
Reads jobs from stdin, {"samples", "count"} a line, and answers each with a line.
"""
import json
import sys
import time

import numpy as np
from transformers import Gemma3nAudioFeatureExtractor

extractor = Gemma3nAudioFeatureExtractor()


def measure(samples, count):
    wave = np.random.default_rng(1).uniform(-0.5, 0.5, samples).astype(np.float32)
    extractor(wave)
    begun, used = time.perf_counter(), time.process_time()
    for _ in range(count):
        extractor(wave)
    return {"clipsPerSecond": count / (time.perf_counter() - begun), "clipsPerCpuSecond": count / (time.process_time() - used)}


for line in sys.stdin:
    print(json.dumps(measure(**json.loads(line))), flush=True)
