"""Floating point operations of training steps from torch's FlopCounterMode, for test/models/flops.test.ts.

Writes fixtures/reference/flops.json: for each case which recorded configuration it is of (see text.py, vision.py,
audio.py), what learns, the batch's shape, and
  total      operations of forward and backward: products and convolutions
  attention  of sound: those of them that multiply queries, keys, distances and values

Rotary angles are products to the reference, and left out. FlopCounterMode counts the weight gradient of a grouped
convolution once a group; here it is counted as it is computed.

    python test/reference/flops.py          # transformers 5.23, timm 1.0.31, peft 0.21, torch 2.15, CPU
"""

import json
from pathlib import Path

import timm
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import Gemma3nAudioConfig, Gemma3nForCausalLM, Gemma3nTextConfig
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nAudioEncoder

ROOT = Path(__file__).resolve().parents[2] / "fixtures" / "reference"
aten = torch.ops.aten


def convolution_backward(grad_shape, x_shape, w_shape, _bias, _stride, _padding, _dilation, _transposed,
                         _output_padding, _groups, output_mask, out_shape):
    places = grad_shape[0] * torch.Size(grad_shape[2:]).numel()
    return 2 * places * torch.Size(w_shape).numel() * (output_mask[0] + output_mask[1])


def counted(run, attends=False):
    """Total and attention's, of `run`."""
    counter = FlopCounterMode(display=False, custom_mapping={aten.convolution_backward: convolution_backward})
    with counter, sdpa_kernel(SDPBackend.MATH):
        run()
    by_module = counter.get_flop_counts()
    total = counter.get_total_flops()
    attention = 0
    for name, ops in by_module.items():
        if name.endswith("rotary_emb"):
            total -= sum(ops.values())
        if name.endswith(".attn"):
            attention += sum(count for op, count in ops.items() if str(op) == "aten.bmm")
    return {"total": total} | ({"attention": attention} if attends else {})


def text_case(name, learns, batch=2, length=11, labels=5):
    config = json.loads((ROOT / f"text-{name}" / "config.json").read_text())
    model = Gemma3nForCausalLM._from_config(Gemma3nTextConfig(**config), attn_implementation="eager")
    body, head = model.model, model.lm_head
    if "lora" in learns:
        wrapped = get_peft_model(model, LoraConfig(r=learns["lora"], target_modules=learns["targets"]))
        dead = [n for n, p in wrapped.named_parameters() if p.requires_grad and is_dead(config, n)]
        assert not dead, dead
    else:
        for key, parameter in model.named_parameters():
            parameter.requires_grad_(not any(part in key for part in learns["frozen"]))
    ids = torch.randint(3, config["vocab_size"], (batch, length))

    def run():
        hidden = body(input_ids=ids, use_cache=False).last_hidden_state
        head(hidden.flatten(0, 1)[:labels]).sum().backward()

    model.train()
    return {"kind": "text", "config": f"text-{name}", **learns, "batch": batch, "length": length, "labels": labels,
            **counted(run)}


def is_dead(config, name):
    first = config["num_hidden_layers"] - config["num_kv_shared_layers"]
    return any(f"layers.{i}.self_attn.{p}_proj" in name for i in range(first, config["num_hidden_layers"]) for p in "kv")


def vision_case(name, frozen, size, images=2):
    args = json.loads((ROOT / f"vision-{name}" / "model_args.json").read_text())
    model = timm.create_model("mobilenetv5_300m_enc", pretrained=False, **args).train()
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(not any(part in key for part in frozen))
    pixels = torch.randn(images, 3, *size)
    return {"kind": "vision", "config": f"vision-{name}", "frozen": frozen, "images": images, "size": size,
            **counted(lambda: backward(model(pixels)))}


def audio_case(name, frozen, frames):
    config = json.loads((ROOT / f"audio-{name}" / "config.json").read_text())
    model = Gemma3nAudioEncoder(Gemma3nAudioConfig(**config)).train()
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(not any(part in key for part in frozen))
    features = torch.randn(1, frames, config.get("input_feat_size", 128))
    masked = torch.zeros(1, frames, dtype=torch.bool)
    return {"kind": "audio", "config": f"audio-{name}", "frozen": frozen, "frames": frames,
            **counted(lambda: backward(model(features, masked, return_dict=True).last_hidden_state), attends=True)}


def backward(result):
    if result.requires_grad:
        result.sum().backward()


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    every = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    live = r".*layers\.([012]\.self_attn\.[kv]_proj|\d+\.(self_attn\.[qo]_proj|mlp\.(gate|up|down)_proj))"
    cases = [
        text_case("sharing", {"frozen": []}),
        text_case("plain", {"frozen": []}),
        text_case("clipped", {"frozen": ["embed_tokens"]}),
        text_case("sharing", {"frozen": ["embed_tokens.", "embed_tokens_per_layer.", "altup", "laurel"]}),
        text_case("sharing", {"frozen": ["embed_tokens", "altup", "laurel", "self_attn", "norm", "per_layer"]}),
        text_case("plain", {"lora": 3, "targets": every}),
        text_case("sharing", {"lora": 2, "targets": live}),
        text_case("sharing", {"lora": 2, "targets": r".*layers\.4\.mlp\.up_proj"}, length=7, labels=14),
        vision_case("plain", [], (64, 96)),
        vision_case("plain", [""], (64, 64)),
        vision_case("scaled", [], (50, 38)),
        vision_case("scaled", ["conv_stem", "blocks.0", "blocks.1"], (33, 47)),
        vision_case("uncommon", [], (64, 96)),
        audio_case("plain", [], 150),
        audio_case("odd", [], 73),
        audio_case("ahead", [""], 90),
        audio_case("every", ["subsample"], 30),
    ]
    (ROOT / "flops.json").write_text(json.dumps(cases, indent=1) + "\n")
    for case in cases:
        print(case)


if __name__ == "__main__":
    main()
