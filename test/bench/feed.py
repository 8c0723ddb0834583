"""Samples a second from Parquet to padded batches: `datasets`, transformers' processor in the collate function, DataLoader.
Arguments: file, processor, samples a batch, batches. Answers each line of stdin, {"workers"}, with {"seconds", "firstSeconds"};
the data set's own conversion of the file is done before.
"""
import io
import json
import sys
import tempfile
import time

import torch
from datasets import load_dataset
from PIL import Image
from torch.utils.data import DataLoader
from transformers import AutoProcessor
from transformers.utils import logging

logging.set_verbosity_error()
torch.set_num_threads(1)
file, folder, size, batches = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
processor = AutoProcessor.from_pretrained(folder)


def collate(rows):
    texts, images = [], []
    for row in rows:
        image = row["images"][0]
        images.append([Image.open(io.BytesIO(image["bytes"])).convert("RGB") if isinstance(image, dict) else image.convert("RGB")])
        turn = row["texts"][0]
        messages = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": turn["user"]}]},
            {"role": "assistant", "content": [{"type": "text", "text": turn["assistant"]}]},
        ]
        texts.append(processor.apply_chat_template(messages))
    return processor(text=texts, images=images, return_tensors="pt", padding=True)


with tempfile.TemporaryDirectory() as cache:
    rows = load_dataset("parquet", data_files=file, split="train", cache_dir=cache)
    for line in sys.stdin:
        workers = json.loads(line)["workers"]
        begun = time.perf_counter()
        loader = DataLoader(rows, batch_size=size, shuffle=True, num_workers=workers, collate_fn=collate)
        first = 0.0
        for number, _batch in enumerate(loader):
            first = first or time.perf_counter() - begun
            if number + 1 == batches:
                break
        print(json.dumps({"seconds": time.perf_counter() - begun, "firstSeconds": first}), flush=True)
