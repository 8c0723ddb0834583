"""Values of the image tower from `timm` (mobilenetv5_300m_enc), for test/models/vision.test.ts.

Writes fixtures/reference/vision-NAME/ for each configuration below:
  model_args.json    as `vision_config.model_args` of a config.json holds them
  model.safetensors  random weights that bfloat16 holds exactly; no parameter keeps its default
  values.safetensors per image size: pixels, features, and for sum(features * cotangent) the gradient of the pixels; for
                     the first size also every parameter's ("grad.NAME"; of a large one "sketch.NAME": its product,
                     flattened to [out, rest], with "signs.REST")
and fixtures/reference/vision-shapes.json: for the 300M tower and variants of it, a digest of every parameter's shape.

    python test/reference/vision.py          # timm 1.0.31, torch 2.15, CPU, float32, one thread
"""

import copy
import hashlib
import json
import shutil
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parents[2] / "fixtures" / "reference"


def er(out_chs, stride=1, exp_ratio=2.0, exp_kernel_size=3, **more):
    return dict(block_type="er", out_chs=out_chs, stride=stride, act_layer=None, exp_kernel_size=exp_kernel_size,
                pw_kernel_size=1, exp_ratio=exp_ratio, force_in_chs=0, se_ratio=0.0, noskip=False) | more


def uir(out_chs, start, mid, stride=1, exp_ratio=2.0, end=0, **more):
    return dict(block_type="uir", out_chs=out_chs, stride=stride, act_layer=None, dw_kernel_size_start=start,
                dw_kernel_size_mid=mid, dw_kernel_size_end=end, exp_ratio=exp_ratio, se_ratio=0.0,
                noskip=False) | more


def mqa(out_chs, heads, dim, kv_stride=1, **more):
    return dict(block_type="mqa", out_chs=out_chs, stride=1, act_layer=None, dw_kernel_size=3, num_heads=heads,
                key_dim=dim, value_dim=dim, kv_stride=kv_stride, noskip=False) | more


CONFIGS = {
    # The real tower's kinds of blocks in four stages; the adapter pools 4x4 to 2x2.
    "plain": dict(
        sizes=[(64, 64), (64, 96)],
        args=dict(
            stem_size=8,
            block_args=[
                [er(8, stride=2), er(8)],
                [uir(16, 3, 5, stride=2), uir(16, 5, 0), uir(16, 0, 3)],
                [uir(8, 5, 5, stride=2), uir(8, 0, 0, exp_ratio=1.0), mqa(8, 2, 8, kv_stride=2), uir(8, 0, 0),
                 mqa(8, 3, 4), uir(8, 0, 0)],
                [uir(8, 5, 5, stride=2), mqa(8, 2, 4), uir(8, 0, 0)],
            ],
            msfa_output_resolution=2,
        ),
    ),
    # Scaled channels, strides at either depthwise convolution, odd sizes that 'same' pads unevenly, three features
    # of which two are resized, an output that needs bilinear resampling.
    "scaled": dict(
        sizes=[(50, 38), (33, 47)],
        args=dict(
            channel_multiplier=0.5, stem_size=12, stem_bias=False, layer_scale_init_value=0.1,
            block_args=[
                [er(20, stride=2, exp_kernel_size=5, exp_ratio=1.5), er(20, noskip=True)],
                [uir(16, 3, 0, stride=2), uir(16, 3, 3, end=3), uir(16, 0, 5, exp_ratio=1.25)],
                [uir(16, 0, 3, stride=2), mqa(16, 2, 4, kv_stride=2), uir(16, 0, 0)],
            ],
            msfa_indices=[-3, -1, 2], msfa_output_resolution=3,
        ),
    ),
    # What timm's blocks take beyond the real tower: dilation past stride 32, symmetric padding, strided queries,
    # positional convolution, squeeze and excitation, other activations, groups, a wide output.
    "uncommon": dict(
        sizes=[(64, 96)],
        args=dict(
            stem_size=8, fix_stem=True, pad_type="", act_layer="gelu", msfa_indices=2, msfa_output_resolution=[1, 3],
            block_args=[
                [er(8, stride=2, group_size=4, se_ratio=0.25), er(8, pw_kernel_size=3, force_in_chs=12)],
                [uir(8, 3, 3, stride=2, group_size=2, se_ratio=0.5), uir(8, 3, 0, act_layer="relu")],
                [uir(8, 0, 0, stride=2, end=3), mqa(8, None, 4, value_dim=6, query_strides=[2, 2], use_cpe=True),
                 uir(8, 0, 0)],
                [uir(8, 3, 3, stride=2)],
                [uir(8, 5, 3, stride=2), mqa(8, 2, 4, kv_stride=2), uir(8, 3, 3, act_layer="hard_swish")],
            ],
        ),
    ),
    # A first stage without stride: the adapter's indices count features but pick stages, so the last stage is dead.
    "shifted": dict(
        sizes=[(4, 5)],
        args=dict(
            stem_size=8,
            block_args=[[er(8)], [uir(8, 0, 3, stride=2)], [uir(8, 3, 0, stride=2)]],
            msfa_output_resolution=[2, 3],
        ),
    ),
}


def randomise(module, seed):
    """Every parameter away from its default, at scales that keep signals alive, rounded to bfloat16."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("gamma"):
            value = 0.5 + 0.3 * noise
        elif parameter.dim() == 4:
            value = noise * 1.4 * parameter[0].numel() ** -0.5
        elif name.endswith("bias"):
            value = 0.3 * noise
        else:
            value = 1 + 0.3 * noise
        parameter.data.copy_(value.bfloat16())


def record_gradients(named, values, generator, largest=8192):
    """Gradients in full where small, else their products with random signs: an error of any entry shows in them."""
    for name, parameter in named:
        gradient = parameter.grad
        if gradient is None:
            continue  # not in the graph
        assert gradient.abs().max() > 0, f"{name}: the gradient is zero"
        if gradient.numel() <= largest:
            values[f"grad.{name}"] = gradient.clone()
            continue
        flat = gradient.flatten(1)
        key = f"signs.{flat.shape[1]}"
        if key not in values:
            values[key] = torch.randint(0, 2, (flat.shape[1], 4), generator=generator) * 2.0 - 1.0
        values[f"sketch.{name}"] = flat @ values[key]


def record(name, seed):
    config = CONFIGS[name]
    out = OUT / f"vision-{name}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "model_args.json").write_text(json.dumps(config["args"], indent=1) + "\n")
    # timm alters the dictionaries that it is given.
    model = timm.create_model("mobilenetv5_300m_enc", num_classes=0, **copy.deepcopy(config["args"])).eval()
    randomise(model, seed)
    save_file({k: v.bfloat16().contiguous() for k, v in model.state_dict().items()}, out / "model.safetensors")

    generator = torch.Generator().manual_seed(seed + 1)
    values = {}
    for index, size in enumerate(config["sizes"]):
        pixels = torch.rand((2 if index == 0 else 1, 3, *size), generator=generator).requires_grad_()
        model.zero_grad()
        features = model.forward_features(pixels)
        channels, places = features.shape[1], features.shape[2:]
        cotangent = torch.randn((channels, 1, 1), generator=generator) * torch.randn(places, generator=generator)
        (features * cotangent).sum().backward()
        values |= {f"{index}.pixels": pixels.detach(), f"{index}.features": features.detach(),
                   f"{index}.cotangent": cotangent, f"{index}.pixels.grad": pixels.grad.clone()}
        if index == 0:
            record_gradients(model.named_parameters(), values, generator)
    save_file({k: v.contiguous() for k, v in values.items()}, out / "values.safetensors")
    for file in out.iterdir():
        file.chmod(0o644)
    total = sum(f.stat().st_size for f in out.iterdir())
    print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters, {total} bytes, "
          f"features {tuple(values['0.features'].shape)} std {values['0.features'].std():.3f}")


def record_shapes():
    """Of towers too large to record values of."""
    recorded = []
    for args in ({}, {"channel_multiplier": 0.3}, {"channel_multiplier": 1.5}, {"group_size": 8, "stem_size": 32}):
        with torch.device("meta"):
            model = timm.create_model("mobilenetv5_300m_enc", num_classes=0, **args)
        lines = sorted(f"{name} {list(p.shape)}" for name, p in model.named_parameters())
        digest = hashlib.sha256("\n".join(lines).replace(", ", ",").encode()).hexdigest()
        recorded.append({"model_args": args, "parameters": sum(p.numel() for p in model.parameters()),
                         "tensors": len(lines), "sha256": digest})
    (OUT / "vision-shapes.json").write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    record_shapes()
    for index, name in enumerate(CONFIGS):
        record(name, seed=1000 * (index + 1))
