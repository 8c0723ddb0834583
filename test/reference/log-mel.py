"""What transformers' Gemma3nAudioFeatureExtractor makes of sounds, for test/audio/log-mel.test.ts.

Writes fixtures/reference/log-mel/
  cases.json     configurations, sounds (by formula, see waves.py), shapes, masks as lengths, which frames are stored
  features.bin   float32: each case's stored frames [clips, stored, melBins], then the mean of every frame [clips, frames]

    python test/reference/log-mel.py     # transformers 5.23, numpy 2.4
"""

import json
import shutil
from pathlib import Path

import numpy as np
from transformers import Gemma3nAudioFeatureExtractor
from waves import wave

OUT = Path(__file__).resolve().parents[2] / "fixtures" / "reference" / "log-mel"

VOICE = dict(kind="voice", samples=9000, hz=170.0)
CHIRP = dict(kind="chirp", samples=8000, hz=60.0, to=7900.0)
TONE = dict(kind="tone", samples=6000, hz=1000.0, level=0.9)
NOISE = dict(kind="noise", samples=5000, seed=7, level=0.1)

BINS = list(np.round(np.linspace(-9, 1, 128), 3))
SPREADS = list(np.round(np.linspace(0.5, 3, 128), 3))


def cases():
    for name, sound in dict(voice=VOICE, chirp=CHIRP, tone=TONE, noise=NOISE).items():
        yield name, {}, [sound]
    yield "silence", {}, [dict(kind="silence", samples=4000)]
    yield "constant", {}, [dict(kind="constant", samples=4000, level=0.7)]
    yield "impulse", {}, [dict(kind="impulse", samples=4000, level=1.0)]
    yield "full scale", {}, [dict(kind="noise", samples=4000, level=1.0)]
    yield "all but silent", {}, [dict(kind="noise", samples=4000, level=2.0**-15)]
    yield "one frame", {}, [dict(kind="voice", samples=513)]
    yield "one frame by padding", {}, [dict(kind="voice", samples=520)]
    yield "a multiple already", {}, [dict(kind="voice", samples=6400)]
    yield "different lengths", {}, [VOICE, NOISE, dict(TONE, samples=700), dict(kind="noise", samples=1)]
    yield "exactly 30 s", {}, [dict(kind="noise", samples=480_000, seed=3)]
    yield "longer than 30 s", {}, [dict(kind="noise", samples=480_100, seed=3), VOICE]
    yield "no overdrive", dict(fft_overdrive=False), [CHIRP]
    yield "no pre-emphasis", dict(preemphasis=0.0), [VOICE]
    yield "negative pre-emphasis", dict(preemphasis=-0.5), [VOICE]
    yield "weak pre-emphasis", dict(preemphasis=0.3), [CHIRP]
    yield "pre-emphasis across frames", dict(preemphasis_htk_flavor=False), [VOICE, TONE]
    yield "mean and deviation", dict(per_bin_mean=BINS, per_bin_stddev=SPREADS), [VOICE, NOISE]
    yield "mean alone", dict(per_bin_mean=BINS), [TONE]
    yield "deviation alone", dict(per_bin_stddev=SPREADS), [CHIRP]
    yield "short frames", dict(frame_length_ms=20.0, hop_length_ms=5.0), [VOICE]
    yield "odd frames", dict(frame_length_ms=20.0625, hop_length_ms=7.03125), [CHIRP]
    yield "frames that round to even", dict(frame_length_ms=25.03125, hop_length_ms=10.09375), [TONE]
    yield "frames of a power of two, no overdrive", dict(frame_length_ms=64.0, fft_overdrive=False), [VOICE]
    yield "few bins", dict(feature_size=40), [VOICE]
    yield "other frequencies", dict(min_frequency=0.0, max_frequency=8000.0, feature_size=80), [CHIRP]
    yield "frequencies beyond half the rate", dict(sampling_rate=8000), [dict(VOICE, rate=8000)]
    yield "another rate", dict(sampling_rate=22050, max_frequency=11000.0), [dict(CHIRP, rate=22050)]
    yield "a high floor", dict(mel_floor=0.05), [VOICE]
    yield "scaled", dict(input_scale_factor=32768.0), [TONE]
    yield "scaled down", dict(input_scale_factor=0.3, preemphasis_htk_flavor=False), [VOICE]
    yield "padded on the left", dict(padding_side="left"), [VOICE, NOISE]
    yield "padded with a value", dict(padding_value=0.01), [VOICE, NOISE]
    yield "no mask wanted", dict(return_attention_mask=False, dither=0.0), [NOISE, TONE]


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    found, blob = [], b""
    for name, config, sounds in cases():
        extractor = Gemma3nAudioFeatureExtractor(**config)
        result = extractor([wave(**sound) for sound in sounds], return_tensors="np")
        features, mask = result["input_features"], result["input_features_mask"]
        assert features.dtype == np.float32 and mask.dtype == bool
        frames = features.shape[1]
        stored = sorted({int(t) for t in np.linspace(0, frames - 1, min(frames, 10))})
        blob += features[:, stored].tobytes() + features.mean(-1).astype(np.float32).tobytes()
        found.append({"name": name, "config": config, "sounds": sounds, "shape": list(features.shape), "stored": stored,
                      "mask": ["".join("01"[int(bit)] for bit in row) for row in mask] if frames < 200 else mask.sum(-1).tolist()})
    (OUT / "cases.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")
    (OUT / "features.bin").write_bytes(blob)
    print(f"{len(found)} cases, {len(blob)} bytes")


if __name__ == "__main__":
    main()
