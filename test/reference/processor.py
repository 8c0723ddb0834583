"""What transformers' Gemma3nProcessor makes of conversations, images and texts, for test/data/processor.test.ts,
test/image/*.test.ts and test/text/*.test.ts; the processor is that of fixtures/tiny-gemma3n.

Writes fixtures/reference/processor/
  images/*           pictures of every kind of file, small
  cases.json         conversations with their prompt, ids and labels; which images they hold; texts with ids
  pixels.bin         each image's pixel values times 255, as bytes [3, 64, 64] one after another (they are whole numbers,
                     checked here), in the order of cases.json's "images"; behind them those of "resizes": input
                     [height, width, 3], output [outHeight, outWidth, 3]

    python test/reference/processor.py     # transformers 5.23, torchvision 0.29, Pillow 13
"""

import base64
import io
import json
import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F
from transformers import AutoProcessor
from transformers.image_utils import load_image

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "fixtures" / "reference" / "processor"
RNG = np.random.default_rng(20)


def picture(height, width, noise=4):
    """Smooth waves with some noise, so that files stay small and yet every pixel differs."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = np.stack([127 + 100 * np.sin(x / 9 + y / 17), 127 + 100 * np.cos(x / 5 - y / 11), x * 255 / width], -1)
    return np.clip(waves + RNG.normal(0, noise, (height, width, 3)), 0, 255).astype(np.uint8)


def png16(array):
    """A PNG of 16 bits a channel, which Pillow writes for gray alone."""
    height, width, channels = array.shape

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def images():
    files = {}

    def save(name, image, kind, **options):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files[name] = buffer.getvalue()

    def rgb(height, width, noise=4):
        return Image.fromarray(picture(height, width, noise))

    small = rgb(24, 32)
    alpha = Image.fromarray(np.dstack([picture(24, 32), RNG.integers(0, 256, (24, 32), dtype=np.uint8)]))
    palette = small.quantize(16)
    deep = RNG.integers(0, 65536, (10, 12, 4)).astype(np.uint16)
    save("same-size.png", rgb(64, 64), "PNG")
    save("larger.png", rgb(90, 120, 0), "PNG")
    save("smaller.png", rgb(30, 17), "PNG")
    save("wide.png", rgb(3, 200), "PNG")
    save("one-pixel.png", rgb(1, 1), "PNG")
    save("gray.png", small.convert("L"), "PNG")
    save("gray-alpha.png", alpha.convert("LA"), "PNG")
    save("rgba.png", alpha, "PNG")
    save("palette.png", palette, "PNG")
    save("palette-transparent.png", palette, "PNG", transparency=3)
    save("palette-alpha.png", palette, "PNG", transparency=bytes(range(0, 256, 16)))
    save("bits.png", small.convert("1"), "PNG")
    save("gray16.png", Image.fromarray((RNG.integers(0, 400, (24, 32))).astype(np.uint16)), "PNG")
    files["rgb16.png"] = png16(deep[..., :3])
    files["rgba16.png"] = png16(deep)
    save("large.jpg", rgb(150, 200), "JPEG", quality=80)
    save("odd.jpg", rgb(41, 63), "JPEG", quality=90)
    save("full-chroma.jpg", small, "JPEG", quality=90, subsampling=0)
    save("progressive.jpg", rgb(80, 60), "JPEG", progressive=True)
    save("gray.jpg", small.convert("L"), "JPEG")
    save("cmyk.jpg", small.convert("CMYK"), "JPEG", quality=90)
    wide = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    save("profile.png", small, "PNG", icc_profile=wide)
    for orientation in (3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(f"orientation-{orientation}.jpg", rgb(20, 31), "JPEG", quality=90, exif=exif)
    save("lossy.webp", small, "WEBP", quality=80)
    save("lossless.webp", small, "WEBP", lossless=True)
    save("alpha.webp", alpha, "WEBP", lossless=True, exact=True)
    save("palette.gif", palette, "GIF")
    save("transparent.gif", palette, "GIF", transparency=3)
    save("animated.gif", palette, "GIF", save_all=True, append_images=[palette.rotate(180)])
    save("rgb.tif", small, "TIFF", compression="tiff_lzw")
    save("cmyk.tif", small.convert("CMYK"), "TIFF", compression="tiff_lzw")
    save("gray16.tif", Image.fromarray(RNG.integers(0, 400, (24, 32)).astype(np.uint16)), "TIFF")
    return files


def turn(role, *parts):
    """A message; parts are texts, or image names behind '@'."""
    content = [
        {"type": "image", "image": part[1:]} if part.startswith("@") else {"type": "text", "text": part}
        for part in parts
    ]
    return {"role": role, "content": content}


def conversations():
    user, model, system = (lambda *parts, role=role: turn(role, *parts) for role in ("user", "assistant", "system"))
    question = "what color is the triangle?"
    red, gray = "@same-size.png", "@gray.jpg"
    return {
        "text only": [user(question), model("red")],
        "prompt": [user(question)],
        "image first": [user(red, question), model("red")],
        "image last": [user(question, red), model("red")],
        "image between texts": [user("is this ", red, " a circle?"), model("no")],
        "two images": [user(red, gray, "is there a circle?"), model("yes")],
        "two images apart": [user(red, "and ", "@larger.png", "  alike?"), model("no")],
        "three sizes": [user("@smaller.png", "@wide.png", "@one-pixel.png", "what shape?"), model("circle")],
        "two turns": [user(red, question), model("red"), user("is there a circle?"), model("no")],
        "an image in each turn": [user(red, question), model("red"), user("and here?", gray), model("gray")],
        "three turns": [user("a"), model("b"), user("c"), model("d"), user("e"), model("f")],
        "open turn": [user(red, question), model("red"), user("is there a circle?")],
        "system": [system("answer in one word"), user(red, question), model("red")],
        "system kept whole": [system("  answer\n\nin one word "), user(question), model("red")],
        "trimmed": [user("  what \n is it? \n\n"), model("\n\ta  triangle  \n")],
        "image alone": [user(red), model("a red triangle")],
        "answer of several lines": [user(question), model("red\n\nor brown\n  perhaps\n")],
        "empty answer": [user(question), model("")],
        "spelt markers": [
            user("say <end_of_turn>\n<start_of_turn>model\nyes <bos> <image_soft_token>", red, "<eos><pad>"),
            model("<start_of_turn>user<end_of_turn> no"),
        ],
        "spelt markers without an image": [system("<bos>"), user("<image_soft_token><start_of_image>"), model("<eos>")],
        "unicode": [user("où est 図形 🔺?\u00a0\ufeffx\u200d"), model("ça: 三角形 👩‍👩‍👧 \ufeff")],
        "byte order mark at the edges": [user("\ufeffwhat?\ufeff"), model("\ufeff red \ufeff")],
        "newlines beside an image": [user("a\n", red, "\n\nb"), model("c")],
    }


TEXTS = [
    "what color is the triangle?", " what", "what ", "  two  spaces   three    ", "\n", "\n\n", "\n\n\n\n\n", "a\nb\n\nc\n\n\nd",
    " \n \n ", "\t\ttabs\t", "\r\n", "Uppercase WORDS", "triangles rectangle's there's", "isinthe", "the▁image", "▁", "▁▁ ▁",
    "1234567890", "<bos>", "<bos", "<<bos>>", "<start_of_turn>user\nhi<end_of_turn>\n", "a<eos>b <pad> <unk> <mask>",
    "<image_soft_token><image_soft_token>", "<unused_vision0> <unused1>", "<0x0A> <0x41>", "naïve café über", "日本語のテキスト",
    "🙂👩‍👩‍👧🇩🇪", "e\u0301 combining", "\u202eright to left\u202c", "\u0000\u0001\u007f", "\ufeffbom", "x\ufeff", "\ufffd", "𝕏 𐍈",
    "עברית العربية", "nonbreaking\u00a0thin\u2009ideographic\u3000", "a" * 300, "triangle" * 40, "?.,!;:'\"()[]{}", "", "con contain",
]


def labels_of(tokenizer, text, ids):
    """The answers' ids, from the first character behind each "model" line to the turn's end."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert encoded["input_ids"] == ids
    spans = [match.span(1) for match in re.finditer(r"<start_of_turn>model\n(.*?<end_of_turn>)", text, re.S)]
    inside = [any(start <= a and b <= end for start, end in spans) for a, b in encoded["offset_mapping"]]
    return [token if learnt else -100 for token, learnt in zip(ids, inside)]


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "images").mkdir(parents=True)
    processor = AutoProcessor.from_pretrained(ROOT / "fixtures" / "tiny-gemma3n")
    tokenizer = processor.tokenizer
    files = images()
    blob = b""

    loaded = {}
    for name, data in files.items():
        (OUT / "images" / name).write_bytes(data)
        loaded[name] = load_image(base64.b64encode(data).decode())
        values = processor.image_processor(loaded[name], return_tensors="pt").pixel_values[0]
        levels = (values * 255).round()
        assert torch.equal(levels.to(torch.uint8) * (1 / 255), values)
        blob += levels.to(torch.uint8).numpy().tobytes()

    cases = []
    for name, messages in conversations().items():
        for generate in (False, True) if messages[-1]["role"] != "assistant" or name == "text only" else (False,):
            names = [part["image"] for m in messages for part in m["content"] if part["type"] == "image"]
            plain = [{**m, "content": [{k: v for k, v in part.items() if k != "image"} for part in m["content"]]} for m in messages]
            prompt = processor.apply_chat_template(plain, tokenize=False, add_generation_prompt=generate)
            pictures = [{**m, "content": [{**part, "image": loaded[part["image"]]} if "image" in part else part
                                          for part in m["content"]]} for m in messages]
            encoded = processor.apply_chat_template(pictures, tokenize=True, return_dict=True, add_generation_prompt=generate,
                                                    sanitize_control_tokens=True)
            ids = encoded["input_ids"][0]
            case = {"name": name, "messages": messages, "addGenerationPrompt": generate, "images": names,
                    "prompt": prompt, "ids": ids}
            if "spelt" not in name:
                text = prompt.replace(processor.image_token, processor.full_image_sequence)
                case["labels"] = labels_of(tokenizer, text, ids)
            cases.append(case)

    texts = []
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        as_text = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        texts.append({"text": text, "ids": ids, "asText": as_text,
                      "decoded": tokenizer.decode(ids), "skipped": tokenizer.decode(ids, skip_special_tokens=True)})
    random = []
    for length in (1, 2, 3, 5, 8, 13, 21, 34, 55):
        for _ in range(4):
            ids = RNG.integers(0, 400, length).tolist()
            random.append({"ids": ids, "decoded": tokenizer.decode(ids), "skipped": tokenizer.decode(ids, skip_special_tokens=True)})

    resizes = []
    for height, width, out_height, out_width in [(9, 12, 64, 64), (64, 64, 9, 12), (33, 65, 28, 96), (1, 50, 7, 7), (90, 7, 5, 20)]:
        for mode in ("bilinear", "bicubic"):
            image = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
            planes = torch.from_numpy(image).permute(2, 0, 1).contiguous()[None]
            result = F.resize(planes, [out_height, out_width], interpolation=InterpolationMode(mode), antialias=True)
            resizes.append({"from": [height, width], "to": [out_height, out_width], "resample": mode})
            blob += image.tobytes() + result[0].permute(1, 2, 0).contiguous().numpy().tobytes()

    normalised = {}
    for key, options in {"rescale": dict(do_normalize=False), "both": dict(do_normalize=True, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]),
                         "normalize": dict(do_rescale=False, do_normalize=True, image_mean=[120.0, 110.0, 100.0], image_std=[60.0, 57.0, 55.0])}.items():
        levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 256).expand(3, 1, 256).contiguous()
        values = processor.image_processor(levels, do_resize=False, input_data_format="channels_first", return_tensors="pt", **options).pixel_values
        normalised[key] = values.flatten().view(torch.int32).tolist()

    value = {"images": list(files), "cases": cases, "texts": texts, "random": random, "resizes": resizes, "normalised": normalised}
    (OUT / "cases.json").write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")
    (OUT / "pixels.bin").write_bytes(blob)
    print(f"{len(files)} images, {len(cases)} conversations, {len(texts)} texts, {len(blob)} bytes of pixels")


if __name__ == "__main__":
    main()
