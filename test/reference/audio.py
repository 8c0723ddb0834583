"""Values of the audio tower from `transformers` (Gemma3nAudioEncoder), for test/models/audio.test.ts.

Writes fixtures/reference/audio-NAME/ for each configuration below:
  config.json        as `audio_config` of a config.json
  model.safetensors  random weights that bfloat16 holds exactly; no parameter keeps its default
  values.safetensors per case N: "N.input", "N.mask" (true on real frames), "N.features", "N.features_mask", and for
                     sum(features * N.cotangent) the gradient of the input; for the first case also every parameter's
                     ("grad.NAME"; of a large one "sketch.NAME", see vision.py), and the features and the summed
                     squared error of all gradients that the reference itself has in bfloat16
Padding holds noise: where the reference lets it through, it must come through.

    python test/reference/audio.py           # transformers 5.23, torch 2.15, CPU, float32, one thread
"""

import copy
import json
import shutil

import torch
from safetensors.torch import save_file
from transformers import Gemma3nAudioConfig
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nAudioEncoder

from vision import OUT, record_gradients

# `cases`: real frames of each clip; a clip is as long as the longest, and so many frames more.
CONFIGS = {
    # The defaults of everything but the widths; lengths that are no multiple of the chunk, or shorter than one.
    "plain": dict(
        cases=[((150, 61, 5), 3), ((1,), 0), ((48,), 0)],
        config=dict(hidden_size=16, input_feat_size=16, conf_num_hidden_layers=2, conf_num_attention_heads=2,
                    sscp_conv_channel_size=[8, 4]),
    ),
    # Other kernels, strides and epsilons; clamps and caps that bite; frames dropped by another factor.
    "odd": dict(
        cases=[((73, 90, 44), 0), ((29,), 5)],
        config=dict(hidden_size=18, input_feat_size=13, conf_num_hidden_layers=2, conf_num_attention_heads=3,
                    conf_attention_chunk_size=5, conf_attention_context_left=4, conf_conv_kernel_size=4,
                    conf_reduction_factor=3, conf_residual_weight=0.75, conf_attention_logit_cap=1.5,
                    gradient_clipping=0.8, rms_norm_eps=0.05, sscp_conv_channel_size=[6, 5],
                    sscp_conv_group_norm_eps=0.1, sscp_conv_kernel_size=[[2, 5], [4, 2]],
                    sscp_conv_stride_size=[[1, 2], [3, 1]]),
    ),
    # Frames ahead, more behind than a chunk is long; half of the frames kept; a light convolution of one frame.
    "ahead": dict(
        cases=[((64, 17, 50), 8), ((7, 90), 0)],
        config=dict(hidden_size=12, input_feat_size=10, conf_num_hidden_layers=2, conf_num_attention_heads=1,
                    conf_attention_chunk_size=4, conf_attention_context_left=9, conf_attention_context_right=3,
                    conf_conv_kernel_size=1, conf_reduction_factor=2, sscp_conv_channel_size=[4, 8]),
    ),
    # Nothing but itself and what lies ahead, in chunks of one; every frame kept; no sub-sampling.
    "every": dict(
        cases=[((11, 30), 2)],
        config=dict(hidden_size=8, input_feat_size=6, conf_num_hidden_layers=1, conf_num_attention_heads=4,
                    conf_attention_chunk_size=1, conf_attention_context_left=0, conf_attention_context_right=2,
                    conf_reduction_factor=1, sscp_conv_channel_size=[4, 4],
                    sscp_conv_kernel_size=[[1, 3], [1, 3]], sscp_conv_stride_size=[[1, 1], [1, 2]]),
    ),
}


def randomise(module, seed):
    """Every parameter away from its default, at scales that keep signals alive, rounded to bfloat16."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("norm.weight"):
            value = 1 + 0.3 * noise
        elif parameter.dim() > 1:
            value = noise * 1.2 * parameter[0].numel() ** -0.5
        else:
            value = 0.5 * noise
        parameter.data.copy_(value.bfloat16())


def clips(generator, lengths, more, bins):
    """Noise about a level, as log-mel has one, and masks that are true on real frames."""
    frames = max(lengths) + more
    features = torch.randn((len(lengths), frames, bins), generator=generator) * 1.5 - 2
    return features, torch.arange(frames) < torch.tensor(lengths).unsqueeze(1)


def run(model, features, mask, cotangent=None):
    result = model(features, ~mask, return_dict=True)
    if cotangent is not None:
        (result.last_hidden_state * cotangent).sum().backward()
    return result.last_hidden_state.detach(), ~result.audio_mel_mask


def record(name, seed):
    written, cases = CONFIGS[name]["config"], CONFIGS[name]["cases"]
    out = OUT / f"audio-{name}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "config.json").write_text(json.dumps(written) + "\n")
    model = Gemma3nAudioEncoder(Gemma3nAudioConfig(**written)).eval()
    randomise(model, seed)
    save_file({k: v.bfloat16().contiguous() for k, v in model.state_dict().items()}, out / "model.safetensors")

    generator = torch.Generator().manual_seed(seed + 1)
    values = {}
    for index, (lengths, more) in enumerate(cases):
        features, mask = clips(generator, lengths, more, written["input_feat_size"])
        if index == 1 and len(lengths) > 1:
            mask[1, 20:33] = False  # a gap
        model.zero_grad()
        with torch.no_grad():
            shape = run(model, features, mask)[0].shape
        cotangent = torch.randn(shape, generator=generator)
        features.requires_grad_()
        result, result_mask = run(model, features, mask, cotangent)
        assert result.isfinite().all()
        values |= {f"{index}.input": features.detach(), f"{index}.mask": mask, f"{index}.features": result,
                   f"{index}.features_mask": result_mask, f"{index}.cotangent": cotangent,
                   f"{index}.input.grad": features.grad.clone()}
        if index > 0:
            continue
        record_gradients(model.named_parameters(), values, generator)
        half = copy.deepcopy(model).bfloat16()
        half.zero_grad()
        values["bfloat16.features"] = run(half, features.detach(), mask, cotangent)[0].float()
        errors = [(a.grad.float() - b.grad).square().sum() / b.grad.square().sum()
                  for a, b in zip(half.parameters(), model.parameters())]
        values["bfloat16.gradient_errors"] = torch.stack(errors).sqrt()
    save_file({k: v.contiguous() for k, v in values.items()}, out / "values.safetensors")
    for file in out.iterdir():
        file.chmod(0o644)
    total = sum(f.stat().st_size for f in out.iterdir())
    first = values["0.features"]
    print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters, {total} bytes, features "
          f"{tuple(first.shape)} std {first.std():.3f}, bfloat16 gradients off by "
          f"{values['bfloat16.gradient_errors'].max():.3f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for index, name in enumerate(CONFIGS):
        record(name, seed=2000 * (index + 1))
