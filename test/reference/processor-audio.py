"""What transformers' Gemma3nProcessor makes of conversations with text, images and audio in any order, for
test/data/processor-audio.test.ts. Once with the processor of fixtures/tiny-gemma3n (the older layout: preprocessor_config.json
beside processor_config.json), once with the same written by transformers 5 (all in processor_config.json) with the published
numbers of soft tokens, 256 an image and 188 a clip.

Writes fixtures/reference/processor-audio/
  published/      the second one's files
  cases.json      conversations, their prompts, ids (each with how often it repeats) and labels; clips by formula (waves.py),
                  pictures by their names in fixtures/reference/processor/images
  features.bin    float32: for each case and clip the features of its first, middle and last frame, then the mean of all

    python test/reference/processor-audio.py     # transformers 5.23, numpy 2.4
"""

import base64
import json
import shutil
from itertools import groupby
from pathlib import Path

import numpy as np
from processor import labels_of
from transformers import AutoProcessor
from transformers.image_utils import load_image
from waves import wave

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "fixtures" / "reference" / "processor-audio"
IMAGES = ROOT / "fixtures" / "reference" / "processor" / "images"

CLIPS = {
    "hello": dict(kind="voice", samples=8000, hz=150.0),
    "seven": dict(kind="voice", samples=12345, hz=210.0, seed=5),
    "hum": dict(kind="tone", samples=16000, hz=220.0, level=0.3),
    "sweep": dict(kind="chirp", samples=20000, hz=80.0, to=7000.0),
    "rain": dict(kind="noise", samples=4800, seed=9, level=0.2),
    "click": dict(kind="impulse", samples=600, level=0.9),
    "blip": dict(kind="tone", samples=40, hz=2000.0),
    "nothing": dict(kind="silence", samples=3200),
    "speech": dict(kind="noise", samples=512_000, seed=11, level=0.4),  # 32 s: two too many
}


def turn(role, *parts):
    """A message; parts are texts, image names behind '@', clip names behind '~'. A lone text with '=' before is a string."""
    if len(parts) == 1 and parts[0].startswith("="):
        return {"role": role, "content": parts[0][1:]}
    kinds = {"@": "image", "~": "audio"}
    return {"role": role, "content": [
        {"type": kinds[part[0]], kinds[part[0]]: part[1:]} if part[:1] in kinds else {"type": "text", "text": part}
        for part in parts]}


def conversations():
    user, model, system = (lambda *parts, role=role: turn(role, *parts) for role in ("user", "assistant", "system"))
    red, gray, wide = "@same-size.png", "@gray.jpg", "@wide.png"
    ask = "what is said?"
    return {
        "audio first": [user("~hello", ask), model("hello")],
        "audio last": [user(ask, "~hello"), model("hello")],
        "audio in the middle": [user("is this ", "~hello", " a greeting?"), model("yes")],
        "audio alone": [user("~hello"), model("a word")],
        "audio to be answered": [user("~seven", ask)],
        "text as a string": [user("=what color is it?"), model("=red")],
        "two clips": [user("~hello", "~seven", "are they the same?"), model("no")],
        "two clips apart": [user("~hello", "and ", "~seven", "  alike?"), model("no")],
        "the same clip twice": [user("~rain", "~rain", "again?"), model("yes")],
        "three clips of three lengths": [user("~rain", "~sweep", "~seven", "which is the longest?"), model("the second")],
        "five clips": [user("~rain", "~hello", "~hum", "~click", "~nothing", "how many?"), model("five")],
        "a clip shorter than a frame beside a longer one": [user("~blip", "~hum", "which is short?"), model("the first")],
        "a short clip": [user("~click", "what?"), model("a click")],
        "silence": [user("~nothing", "what?"), model("nothing")],
        "a tone": [user("~hum", "which tone?"), model("a low one")],
        "longer than 30 s": [user("~speech", "sum it up"), model("noise")],
        "longer than 30 s beside a short one": [user("~hello", "~speech", "which is longer?"), model("the second")],
        "image, then audio": [user(red, "~hello", "does it say what is shown?"), model("no")],
        "audio, then image": [user("~hello", red, "does it say what is shown?"), model("no")],
        "image, text, audio": [user(red, "what is this, and what is ", "~hello"), model("red and a greeting")],
        "audio, text, image": [user("~hello", "what is this, and what is ", red), model("a greeting and red")],
        "text, image, text, audio, text": [user("look: ", red, " and listen: ", "~hello", " what?"), model("red")],
        "text, audio, text, image, text": [user("listen: ", "~hello", " and look: ", gray, " what?"), model("gray")],
        "alternating": [user(red, "~hello", gray, "~seven", "pair them"), model("yes")],
        "two images and a clip": [user(red, wide, "~rain", "which one rains?"), model("the second")],
        "two clips and an image": [user("~rain", "~hum", red, "which one is red?"), model("none")],
        "media alone": [user(red, "~hello"), model("a triangle")],
        "audio in the second turn": [user("what is red?"), model("a color"), user("~hello", ask), model("hello")],
        "audio in each turn": [user("~hello", ask), model("hello"), user("~seven", "and here?"), model("seven")],
        "an image, later a clip": [user(red, "what?"), model("red"), user("~hello", ask), model("hello")],
        "a clip, later an image": [user("~hello", ask), model("hello"), user("and this?", red), model("red")],
        "three turns of all": [user(red, "~rain", "a"), model("b"), user("~hum", "c"), model("d"), user(gray, "e"), model("f")],
        "an open turn with audio": [user("~hello", ask), model("hello"), user("and now?", "~seven")],
        "an open turn with all": [user("~hello", ask), model("hello"), user(red, "~seven", "and now?")],
        "system as a string": [system("=listen well"), user("~hello", ask), model("hello")],
        "system as a part": [system("listen well"), user("~hello", ask), model("hello")],
        "system with newlines": [system("  listen\n\nwell "), user(red, "~hello", ask), model("hello")],
        "system, several turns": [system("=be short"), user("~hello", ask), model("hello"), user("~hum", red), model("a tone")],
        "system, an open turn": [system("be short"), user("~sweep", "up or down?")],
        "mixed strings and parts": [user("=hi"), model("=hello"), user("~hello", ask), model("=hello")],
        "the assistant speaks": [user("say it"), model("here: ", "~hello", "done")],
        "the assistant shows and speaks": [user("~rain", "do it"), model(red, "~hello"), user("thanks")],
        "unicode": [user("où est 図形 🔺? ", "~hello", "\u00a0\ufeffx\u200d"), model("ça: 三角形 👩‍👩‍👧 \ufeff")],
        "unicode around media": [user("日本語", "~seven", "🇩🇪", red, "e\u0301"), model("naïve café")],
        "newlines beside a clip": [user("a\n", "~hello", "\n\nb"), model("c")],
        "spaces beside a clip": [user("  a  ", "~hello", "  b  "), model(" c ")],
        "an answer of several lines": [user("~hello", ask), model("hello\n\nor\n  perhaps not\n")],
        "an empty answer": [user("~nothing", ask), model("")],
        "spelt markers": [
            user("say <audio_soft_token> <start_of_audio>", "~hello", "<end_of_audio><eos>", red, "<image_soft_token>"),
            model("<audio_soft_token><end_of_turn> no")],
        "spelt markers without media": [system("<audio_soft_token>"), user("<start_of_audio><audio_soft_token>"), model("<bos>")],
    }


def record(processor, messages, loaded, waves, generate):
    """Prompt, ids, labels where the assistant only writes, features and mask."""
    def mapped(values):
        return [m if isinstance(m["content"], str) else {**m, "content": [
            {"type": part["type"], **values(part)} for part in m["content"]]} for m in messages]

    plain = mapped(lambda part: {"text": part["text"]} if "text" in part else {})
    full = mapped(lambda part: {"text": part["text"]} if "text" in part else
                  {"image": loaded[part["image"]]} if "image" in part else {"audio": waves[part["audio"]]})
    prompt = processor.apply_chat_template(plain, tokenize=False, add_generation_prompt=generate)
    encoded = processor.apply_chat_template(full, tokenize=True, return_dict=True, add_generation_prompt=generate,
                                            sanitize_control_tokens=True)
    return prompt, encoded


def runs(values):
    return [[value, len(list(group))] for value, group in groupby(values)]


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    tiny = AutoProcessor.from_pretrained(ROOT / "fixtures" / "tiny-gemma3n")
    published = AutoProcessor.from_pretrained(ROOT / "fixtures" / "tiny-gemma3n", audio_seq_length=188, image_seq_length=256)
    published.tokenizer.model_max_length = int(1e30)
    published.save_pretrained(OUT / "published")
    published = AutoProcessor.from_pretrained(OUT / "published")
    assert (published.image_seq_length, published.audio_seq_length) == (256, 188)

    waves = {name: wave(**sound) for name, sound in CLIPS.items()}
    cases, blob = [], b""
    for name, messages in conversations().items():
        parts = [part for m in messages if not isinstance(m["content"], str) for part in m["content"]]
        names = {kind: [part[kind] for part in parts if kind in part] for kind in ("image", "audio")}
        loaded = {n: load_image(base64.b64encode((IMAGES / n).read_bytes()).decode()) for n in names["image"]}
        writes_only = not any(part["type"] != "text" for m in messages if m["role"] == "assistant"
                              and not isinstance(m["content"], str) for part in m["content"])
        for generate in (False, True) if messages[-1]["role"] != "assistant" else (False,):
            prompt, encoded = record(tiny, messages, loaded, waves, generate)
            prompt_too, encoded_too = record(published, messages, loaded, waves, generate)
            assert prompt == prompt_too
            ids = encoded["input_ids"][0]
            case = {"name": name, "messages": messages, "addGenerationPrompt": generate, "images": names["image"],
                    "clips": names["audio"], "prompt": prompt, "ids": runs(ids), "published": runs(encoded_too["input_ids"][0])}
            if "spelt" not in name and writes_only:
                text = prompt
                for token, full in ((tiny.image_token, tiny.full_image_sequence), (tiny.audio_token, tiny.full_audio_sequence)):
                    text = text.replace(token, full)
                case["labels"] = runs(labels_of(tiny.tokenizer, text, ids))
            if names["audio"]:
                features = np.stack(encoded["input_features"])
                assert features.dtype == np.float32 and np.array_equal(features, np.stack(encoded_too["input_features"]))
                frames = features.shape[1]
                case["frames"] = frames
                case["mask"] = [int(row.sum()) for row in encoded["input_features_mask"]]
                assert all(row[:n].all() for row, n in zip(encoded["input_features_mask"], case["mask"]))
                for clip in features:
                    blob += clip[[0, frames // 2, frames - 1]].tobytes()
                    blob += clip.astype(np.float64).mean().astype(np.float32).tobytes()
            if names["image"]:  # the values are those of processor.py's pictures
                assert len(encoded["pixel_values"]) == len(names["image"])
            cases.append(case)
    value = {"clips": CLIPS, "cases": cases}
    (OUT / "cases.json").write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")
    (OUT / "features.bin").write_bytes(blob)
    print(f"{len(cases)} conversations, {len(blob)} bytes of features")


if __name__ == "__main__":
    main()
