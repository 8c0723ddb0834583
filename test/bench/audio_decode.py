"""Clips a second, and a second of processor time, that soundfile decodes and librosa mixes down and resamples to 16 kHz.

Reads questions from stdin, a line each, and answers each with a line: {"folder", "seconds"} writes the clips and lists them;
{"file", "count", "threads"} measures one. What soundfile cannot read goes through a process of ffmpeg, as audioread does it.
"""
import io
import json
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import librosa
import numpy as np
import soundfile

FFMPEG = shutil.which("ffmpeg")


def prepare(folder, seconds):
    jobs = []

    def add(name, file, rate, channels, count, **how):
        t = np.arange(seconds * rate) / rate
        noise = np.random.default_rng(0)
        wave = np.stack([0.3 * np.sin(2 * np.pi * (200 + 100 * t) * t + c) for c in range(channels)], 1)
        path = str(Path(folder) / file)
        soundfile.write(path, wave + 0.02 * noise.standard_normal(wave.shape), rate, **how)
        jobs.append({"name": name, "file": path, "count": count})

    add("WAV 16 kHz mono", "16.wav", 16000, 1, 400)
    add("WAV 44.1 kHz stereo", "44.wav", 44100, 2, 60)
    add("FLAC 16 kHz mono", "16.flac", 16000, 1, 100)
    add("FLAC 44.1 kHz stereo", "44.flac", 44100, 2, 40)
    add("MP3 44.1 kHz stereo", "44.mp3", 44100, 2, 40, format="MP3")
    add("Ogg Vorbis 44.1 kHz stereo", "44.ogg", 44100, 2, 40, format="OGG", subtype="VORBIS")
    add("Ogg Opus 48 kHz mono", "48.opus", 48000, 1, 40, format="OGG", subtype="OPUS")
    if FFMPEG:
        path = str(Path(folder) / "44.m4a")
        subprocess.run([FFMPEG, "-v", "error", "-i", jobs[1]["file"], "-c:a", "aac", path], check=True)
        jobs.append({"name": "AAC in MP4 44.1 kHz stereo, through ffmpeg", "file": path, "count": 20})
    return jobs


def decode(path, data):
    if path.endswith(".m4a"):
        command = [FFMPEG, "-v", "error", "-i", path, "-ac", "1", "-ar", "16000", "-f", "f32le", "-"]
        return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, "<f4")
    wave, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return librosa.resample(librosa.to_mono(wave.T), orig_sr=rate, target_sr=16000)


def cpu_seconds():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(file, count, threads):
    data = Path(file).read_bytes()
    with ThreadPoolExecutor(threads) as pool:
        run = lambda number: list(pool.map(lambda _: decode(file, data).shape, range(number)))
        run(max(4, count // 10))
        begun, used = time.perf_counter(), cpu_seconds()
        run(count)
        seconds, cpu = time.perf_counter() - begun, cpu_seconds() - used
    return {"clipsPerSecond": count / seconds, "clipsPerCpuSecond": count / cpu}


for line in sys.stdin:
    question = json.loads(line)
    print(json.dumps(prepare(**question) if "folder" in question else measure(**question)), flush=True)
