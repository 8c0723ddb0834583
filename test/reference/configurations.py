"""The default configurations of Gemma 3n, and what `transformers` builds of them, for test/models/inspect.test.ts.

Writes fixtures/configs/:
  gemma-3n-E4B.json, gemma-3n-E2B.json   config.json with the values of google/gemma-3n-E4B and -E2B, which are the
                                         reference's defaults, and of E2B fewer layers and narrower feed-forwards
  parameters.json    for each: parameters a part, built on the meta device, without any weights; the keys and values of
                     sharing layers that the published checkpoints hold besides (the difference to the same model without
                     sharing); SHA-256 of all names and shapes

    python test/reference/configurations.py      # transformers 5.23, timm 1.0.31
"""

import copy
import hashlib
import json

import torch
from transformers import Gemma3nConfig, Gemma3nForConditionalGeneration

from text import OUT

CONFIGS = {
    "gemma-3n-E4B": {},
    "gemma-3n-E2B": dict(num_hidden_layers=30, num_kv_shared_layers=10, intermediate_size=8192),
}
PARTS = {  # in order: the first prefix that fits
    "perLayerEmbeddings": "model.language_model.embed_tokens_per_layer.",
    "tokenEmbeddings": "model.language_model.embed_tokens.",
    "text": "model.language_model.",
    "vision": "model.vision_tower.",
    "audio": "model.audio_tower.",
    "visionProjector": "model.embed_vision.",
    "audioProjector": "model.embed_audio.",
}


def shapes(**text):
    config = Gemma3nConfig(text_config=copy.deepcopy(text))
    with torch.device("meta"):
        model = Gemma3nForConditionalGeneration(config)
    model.tie_weights()
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def count(shape):
    return torch.Size(shape).numel()


def record(name):
    config = Gemma3nConfig(text_config=dict(CONFIGS[name])).to_dict()
    for part in (config, config["text_config"], config["vision_config"], config["audio_config"]):
        for key in ("transformers_version", "_name_or_path", "chunk_size_feed_forward", "id2label", "label2id",
                    "output_attentions", "output_hidden_states", "return_dict", "is_encoder_decoder", "problem_type",
                    "label_names", "num_classes", "use_cache"):
            part.pop(key, None)
    config["architectures"] = ["Gemma3nForConditionalGeneration"]
    config["dtype"] = "bfloat16"
    (OUT.parent / "configs" / f"{name}.json").write_text(json.dumps(config, indent=1) + "\n")

    found = shapes(**CONFIGS[name])
    parts = dict.fromkeys(PARTS, 0)
    for key, shape in found.items():
        parts[next(part for part, prefix in PARTS.items() if key.startswith(prefix))] += count(shape)
    unshared = shapes(**CONFIGS[name] | dict(num_kv_shared_layers=0))
    live, stored = sum(map(count, found.values())), sum(map(count, unshared.values()))
    lines = "".join(f"{key} {'x'.join(map(str, shape))}\n" for key, shape in sorted(found.items()))
    return dict(parts=parts, total=live, dead=stored - live, numTensors=len(found),
                sha256=hashlib.sha256(lines.encode()).hexdigest())


if __name__ == "__main__":
    (OUT.parent / "configs").mkdir(exist_ok=True)
    recorded = {name: record(name) for name in CONFIGS}
    (OUT.parent / "configs" / "parameters.json").write_text(json.dumps(recorded, indent=1) + "\n")
    for name, values in recorded.items():
        print(name, values["total"] + values["dead"], values)
