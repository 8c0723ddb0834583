"""Writes fixtures/reference/audio: short clips in every format that is decoded, and what they hold at 16 kHz.

Expected samples: the file decoded by libsndfile (or by ffmpeg where libsndfile cannot read it), the mean of its channels, and
that through ffmpeg's resampler at its defaults; every eleventh sample is kept. The clips are chirps with a little noise, made
here.

    python test/reference/audio-files.py        # needs numpy, soundfile and ffmpeg (with libmp3lame, libvorbis, libopus)
"""
import base64
import json
import struct
import subprocess
from pathlib import Path

import numpy as np
import soundfile as sf

OUT = Path(__file__).resolve().parents[2] / "fixtures" / "reference" / "audio"
STRIDE = 11


def chirps(rate, channels, seconds):
    t = np.arange(int(rate * seconds)) / rate
    noise = np.random.default_rng(channels * rate)
    waves = [0.4 * np.sin(2 * np.pi * (300 + 150 * c + 4000 * t) * t) for c in range(channels)]
    return np.stack([wave + 0.02 * noise.standard_normal(len(t)) for wave in waves], 1)


def ffmpeg(*args, **kwargs):
    command = ["ffmpeg", "-v", "error", "-y", "-bitexact", *map(str, args)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, **kwargs).stdout


def write(name, rate, channels, seconds=0.1, **how):
    sf.write(OUT / name, chirps(rate, channels, seconds), rate, **how)


def encode(name, rate, channels, seconds, *args, stdout=False):
    """Through ffmpeg, from float samples."""
    raw = chirps(rate, channels, seconds).astype("<f4").tobytes()
    source = ["-f", "f32le", "-ar", rate, "-ac", channels, "-i", "-"]
    done = ffmpeg(*source, *args, "-flags", "+bitexact", "-" if stdout else OUT / name, input=raw)
    if stdout:
        (OUT / name).write_bytes(done)


def decode(path, decoder):
    if decoder == "soundfile":
        return sf.read(path, dtype="float32", always_2d=True)
    codec = ["-c:a", "libopus"] if decoder == "libopus" else []
    wav = ffmpeg(*codec, "-i", path, "-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "-")
    rate, channels = struct.unpack_from("<I", wav, 24)[0], struct.unpack_from("<H", wav, 22)[0]
    samples = np.frombuffer(wav[wav.index(b"data") + 8 :], "<f4")
    return samples.reshape(-1, channels), rate


def resample(wave, rate):
    source = ["-f", "f32le", "-ar", rate, "-ac", 1, "-i", "-"]
    filters = "aresample=16000:rematrix_maxval=1,aformat=sample_fmts=flt:channel_layouts=mono"
    return np.frombuffer(ffmpeg(*source, "-af", filters, "-f", "f32le", "-", input=wave.tobytes()), "<f4")


def expected(name, decoder="soundfile"):
    samples, rate = decode(OUT / name, decoder)
    wave = resample(samples.mean(1, dtype=np.float64).astype("<f4"), rate)
    values = base64.b64encode(np.ascontiguousarray(wave[::STRIDE]).tobytes()).decode()
    return {"sourceRateHz": rate, "numChannels": samples.shape[1], "numSourceSamples": len(samples), "values": values}


OUT.mkdir(parents=True, exist_ok=True)
for old in OUT.iterdir():
    old.unlink()

write("pcm8-8k.wav", 8000, 1, subtype="PCM_U8")
write("pcm16-44k-stereo.wav", 44100, 2, subtype="PCM_16")
write("pcm24-48k.wav", 48000, 1, subtype="PCM_24")
write("pcm32-22k-3ch.wav", 22050, 3, 0.05, subtype="PCM_32")
write("float32-16k.wav", 16000, 1, subtype="FLOAT")
write("float64-11k.wav", 11025, 2, 0.05, subtype="DOUBLE")
write("alaw-8k.wav", 8000, 1, subtype="ALAW")
write("mulaw-8k-stereo.wav", 8000, 2, subtype="ULAW")
write("pcm16-16k-8ch.wav", 16000, 8, 0.06, format="WAVEX", subtype="PCM_16")
write("pcm24-16k-6ch.wav", 16000, 6, 0.06, format="WAVEX", subtype="PCM_24")
write("pcm16-rf64.wav", 16000, 2, format="RF64", subtype="PCM_16")
write("pcm16-rifx.wav", 16000, 2, format="WAV", subtype="PCM_16", endian="BIG")
encode("pcm16-streamed.wav", 32000, 1, 0.1, "-f", "wav", stdout=True)
write("pcm16-44k-stereo.aiff", 44100, 2, format="AIFF", subtype="PCM_16")
write("pcm24-24k.aiff", 24000, 1, format="AIFF", subtype="PCM_24")
write("float32-12k.aifc", 12000, 1, format="AIFF", subtype="FLOAT")
write("mulaw-8k.aifc", 8000, 1, format="AIFF", subtype="ULAW")
write("pcm16-little-endian.aifc", 16000, 1, format="AIFF", subtype="PCM_16", endian="LITTLE")
encode("cbr-44k-stereo-tags.mp3", 44100, 2, 0.2, "-b:a", "128k", "-id3v2_version", "3", "-metadata", "title=a clip")
encode("vbr-16k.mp3", 16000, 1, 0.5, "-q:a", "4")
encode("cbr-22k-stereo.mp3", 22050, 2, 0.3, "-b:a", "48k")
encode("no-info-32k.mp3", 32000, 1, 0.2, "-b:a", "64k", "-write_xing", "0", "-id3v2_version", "0")
encode("layer2-48k.mp2", 48000, 1, 0.15, "-b:a", "96k")
write("16bit-44k-stereo.flac", 44100, 2, subtype="PCM_16")
write("8bit-8k.flac", 8000, 1, subtype="PCM_S8")
write("24bit-96k.flac", 96000, 1, 0.05, subtype="PCM_24")
write("16bit-48k-8ch.flac", 48000, 8, 0.03, subtype="PCM_16")
encode("streamed.flac", 16000, 1, 0.2, "-sample_fmt", "s16", "-f", "flac", stdout=True)
encode("44k-stereo.ogg", 44100, 2, 0.2, "-c:a", "libvorbis", "-q:a", "3")
encode("48k-6ch.ogg", 48000, 6, 0.1, "-c:a", "libvorbis", "-q:a", "1")
encode("48k-stereo.opus", 48000, 2, 0.3, "-c:a", "libopus", "-b:a", "48k")
encode("16k-60ms-frames.opus", 16000, 1, 0.5, "-c:a", "libopus", "-b:a", "24k", "-frame_duration", "60")
encode("48k-6ch.opus", 48000, 6, 0.1, "-c:a", "libopus", "-b:a", "128k")
encode("flac-in-ogg.oga", 16000, 2, 0.2, "-c:a", "flac", "-sample_fmt", "s16")
picture = ["-f", "lavfi", "-i", "color=red:size=32x32:rate=5:duration=0.3"]
ffmpeg(*picture, "-i", OUT / "44k-stereo.ogg", "-c:v", "libtheora", "-c:a", "copy", "-flags", "+bitexact", OUT / "theora-and-vorbis.ogv")

# Through ffmpeg.
encode("adpcm.wav", 16000, 1, 0.2, "-c:a", "adpcm_ima_wav")
encode("alac.m4a", 44100, 2, 0.1, "-c:a", "alac", "-sample_fmt", "s16p")
encode("aac.m4a", 44100, 1, 0.3, "-c:a", "aac", "-b:a", "48k")
encode("aac.aac", 44100, 1, 0.3, "-c:a", "aac", "-b:a", "48k")
encode("flac.mka", 48000, 1, 0.1, "-c:a", "flac", "-sample_fmt", "s16")
encode("opus.webm", 48000, 1, 0.3, "-c:a", "libopus", "-b:a", "32k")
encode("mulaw.au", 8000, 1, 0.2, "-c:a", "pcm_mulaw")
video = ["-c:v", "mpeg4", "-b:v", "20k", "-flags", "+bitexact"]
ffmpeg(*picture, "-i", OUT / "16bit-44k-stereo.flac", *video, "-c:a", "alac", OUT / "video.mp4")
ffmpeg(*picture, *video, OUT / "silent.mp4")

decoders = {name: "ffmpeg" for name in ["streamed.flac", "flac-in-ogg.oga", "theora-and-vorbis.ogv", "alac.m4a", "aac.m4a"]}
decoders |= {name: "ffmpeg" for name in ["aac.aac", "flac.mka", "video.mp4", "adpcm.wav", "opus.webm"]}
decoders |= {name: "libopus" for name in ["48k-stereo.opus", "16k-60ms-frames.opus", "48k-6ch.opus"]}
names = sorted(path.name for path in OUT.iterdir() if path.name != "silent.mp4")
clips = {name: expected(name, decoders.get(name, "soundfile")) for name in names}

# The resampler by itself: rates in use, from noise that the test makes too.
noise = np.empty(1024, "<f4")
state = 1
for i in range(len(noise)):
    state = (state * 1664525 + 1013904223) % 2**32
    noise[i] = state / 2**32 - 0.5
rates = [8000, 11025, 12000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 192000]
resampled = {str(rate): base64.b64encode(resample(noise, rate)[-400:].tobytes()).decode() for rate in rates}
(OUT / "expected.json").write_text(json.dumps({"stride": STRIDE, "clips": clips, "resampled": resampled}, indent=1) + "\n")
total = sum(path.stat().st_size for path in OUT.iterdir())
print(f"{len(clips)} clips, {total} bytes")
