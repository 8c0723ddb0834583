"""Sounds by formula, so that nothing of them has to be stored: the same float32 samples as test/reference/waves.ts makes."""

import math

import numpy as np


def lcg(seed, count):
    """Numbers in [-1, 1): x' = 1664525 x + 1013904223 mod 2^32."""
    state, out = seed, np.empty(count)
    for i in range(count):
        state = (1664525 * state + 1013904223) % 2**32
        out[i] = state / 2**31 - 1
    return out


def wave(kind, samples, rate=16000, seed=1, hz=440.0, to=4000.0, level=0.5):
    """[samples] float32; see waves.ts for what each kind is."""
    i = np.arange(samples, dtype=np.float64)
    t = i / rate
    if kind == "silence":
        values = np.zeros(samples)
    elif kind == "constant":
        values = np.full(samples, level)
    elif kind == "impulse":
        values = np.where(i == samples // 2, level, 0.0)
    elif kind == "noise":
        values = level * lcg(seed, samples)
    elif kind == "tone":
        values = np.array([level * math.sin(2 * math.pi * hz * x) for x in t])
    elif kind == "chirp":
        length = samples / rate
        values = np.array([level * math.sin(2 * math.pi * (hz * x + (to - hz) / (2 * length) * x * x)) for x in t])
    elif kind == "voice":  # a buzz that comes and goes, over noise, in 16 bits
        buzz = np.array([sum(math.sin(2 * math.pi * hz * h * x) / h for h in range(1, 9)) for x in t])
        swell = np.array([0.5 - 0.5 * math.cos(2 * math.pi * 3 * x) for x in t])
        values = np.floor((level * 0.5 * buzz * swell + 0.003 * lcg(seed, samples)) * 32767 + 0.5) / 32768
    else:
        raise ValueError(kind)
    return values.astype(np.float32)
