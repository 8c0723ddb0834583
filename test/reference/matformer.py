"""Sliced models as plain torch makes them, for test/models/matformer.test.ts.

Each case takes a checkpoint of fixtures/reference, cuts its weights by indexing, puts them into a `transformers` model of
the cut configuration, and records in fixtures/reference/matformer/:
  NAME.json           the slice; the cut text configuration; shape and SHA-256 of every weight's bytes
  NAME.safetensors    input_ids, attention_mask, logits, and pixel_values where there are images

    python test/reference/matformer.py       # transformers 5.23, torch 2.15, CPU, float32, one thread
"""

import copy
import hashlib
import json

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, Gemma3nForCausalLM, Gemma3nForConditionalGeneration

from text import OUT

CASES = {
    # Layers of both kinds dropped before and after sharing begins; widths as they are, halved, odd.
    "sharing": ("text-sharing", [1, 2, 3, 5], [24, 16, 48, 7]),
    # Feed-forwards alone.
    "narrow": ("text-sharing", [0, 1, 2, 3, 4, 5], [8] * 6),
    # Nothing shares any more; the last sliding source is not the last unshared layer.
    "unshared": ("text-clipped", [0, 1, 2], [12, 32, 24]),
    # An output head of its own, biases.
    "plain": ("text-plain", [0, 2], [32, 10]),
    # Among towers.
    "multimodal": ("multimodal-plain", [0, 1, 3], [16, 40, 12]),
}


def cut(name, layers, sizes):
    source = OUT / name
    config = AutoConfig.from_pretrained(source)
    nested = hasattr(config, "text_config")
    whole = config.text_config if nested else config
    text = copy.deepcopy(whole)
    text.num_hidden_layers = len(layers)
    text.intermediate_size = list(sizes)
    text.layer_types = [whole.layer_types[i] for i in layers]
    text.activation_sparsity_pattern = [whole.activation_sparsity_pattern[i] for i in layers]
    first_shared = whole.num_hidden_layers - whole.num_kv_shared_layers
    text.num_kv_shared_layers = len([i for i in layers if i >= first_shared])

    prefix = "model.language_model." if nested else "model."
    size = whole.hidden_size_per_layer_input
    columns = torch.cat([torch.arange(i * size, (i + 1) * size) for i in layers])
    weights = {}
    for key, value in load_file(source / "model.safetensors").items():
        if key.startswith(prefix + "layers."):
            layer, rest = key[len(prefix) + 7:].split(".", 1)
            if int(layer) not in layers:
                continue
            new = layers.index(int(layer))
            key = f"{prefix}layers.{new}.{rest}"
            if rest in ("mlp.gate_proj.weight", "mlp.up_proj.weight"):
                value = value[: sizes[new]]
            elif rest == "mlp.down_proj.weight":
                value = value[:, : sizes[new]]
        elif key == prefix + "embed_tokens_per_layer.weight":
            value = value[:, columns]
        elif key == prefix + "per_layer_model_projection.weight":
            value = value[columns]
        weights[key] = value.contiguous()

    if nested:
        config.text_config = text
        model = Gemma3nForConditionalGeneration(config).eval()
    else:
        model = Gemma3nForCausalLM(text).eval()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and all("lm_head" in key and text.tie_word_embeddings for key in missing), (missing, unexpected)
    model.tie_weights()
    return model, text, weights


def record(case):
    name, layers, sizes = CASES[case]
    model, text, weights = cut(name, layers, sizes)
    stored = load_file(OUT / name / "values.safetensors")
    key = "left." if "left.input_ids" in stored else ""
    inputs = {k: stored[key + k] for k in ("input_ids", "attention_mask")}
    if "pixel_values" in stored:
        inputs["pixel_values"] = stored["pixel_values"]
    with torch.no_grad():
        logits = model(**inputs).logits
    out = OUT / "matformer"
    out.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in {**inputs, "logits": logits}.items()}, out / f"{case}.safetensors")
    kept = ("num_hidden_layers", "intermediate_size", "layer_types", "activation_sparsity_pattern", "num_kv_shared_layers")
    meta = {
        "source": name, "layers": layers, "intermediateSizes": sizes,
        "config": {k: getattr(text, k) for k in kept},
        "weights": {k: [list(v.shape), hashlib.sha256(v.view(torch.uint8).numpy().tobytes()).hexdigest()] for k, v in sorted(weights.items())},
    }
    (out / f"{case}.safetensors").chmod(0o644)
    (out / f"{case}.json").write_text(json.dumps(meta) + "\n")
    print(case, sum(v.numel() for v in weights.values()), "weights, largest logit", logits.abs().max().item())


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in CASES:
        record(case)
