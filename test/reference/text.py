"""Values of the text tower from `transformers`, for test/models/text-*.test.ts.

Writes fixtures/reference/text-NAME/ for each configuration below:
  config.json        as `save_pretrained` writes it
  model.safetensors  random weights; no parameter keeps its default, so that none hides a mistake
  values.safetensors per mask case: input_ids, attention_mask, labels, logits, loss; for one case also the gradient of
                     every parameter ("grad.NAME"); prompts and greedily generated ids, one by one and left-padded

    python test/reference/text.py          # transformers 5.23, torch 2.15, CPU, float32, one thread
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

OUT = Path(__file__).resolve().parents[2] / "fixtures" / "reference"

S, F = "sliding_attention", "full_attention"

COMMON = dict(vocab_size=96, vocab_size_per_layer_input=80, head_dim=8, rms_norm_eps=1e-6, pad_token_id=0,
              eos_token_id=None, bos_token_id=2)

CONFIGS = {
    # The usual shape: sharing layers of both kinds, a sparse layer that shares and one that does not.
    "sharing": dict(
        COMMON, hidden_size=32, hidden_size_per_layer_input=6, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, layer_types=[S, S, F, S, S, F], num_kv_shared_layers=3, sliding_window=4,
        intermediate_size=[40, 24, 32, 48, 24, 24], activation_sparsity_pattern=[0.6, 0.0, 0.9, 0.0, 0.7, 0.0],
        laurel_rank=5, altup_num_inputs=4, altup_active_idx=0, final_logit_softcapping=12.0,
        rope_parameters={S: {"rope_type": "default", "rope_theta": 100.0},
                         F: {"rope_type": "default", "rope_theta": 5000.0}},
    ),
    # Nothing shared; another active input; no output scale; biases; its own output head; another activation.
    "plain": dict(
        COMMON, hidden_size=24, hidden_size_per_layer_input=4, num_hidden_layers=3, num_attention_heads=3,
        num_key_value_heads=1, layer_types=[F, S, F], num_kv_shared_layers=0, sliding_window=3,
        intermediate_size=32, activation_sparsity_pattern=[0.0, 0.5, 0.0], laurel_rank=3, altup_num_inputs=2,
        altup_active_idx=1, altup_correct_scale=False, final_logit_softcapping=30.0, attention_bias=True,
        hidden_activation="gelu", tie_word_embeddings=False,
    ),
    # Coefficients beyond the clip (which acts in training only); the last sliding source is not the last unshared layer.
    "clipped": dict(
        COMMON, hidden_size=16, hidden_size_per_layer_input=4, num_hidden_layers=5, num_attention_heads=2,
        num_key_value_heads=2, layer_types=[S, F, F, S, F], num_kv_shared_layers=2, sliding_window=5,
        intermediate_size=[24, 32, 24, 40, 24], activation_sparsity_pattern=[0.95, 0.0, 0.3, 0.0, 0.0],
        laurel_rank=4, altup_num_inputs=3, altup_active_idx=0, altup_coef_clip=0.25, final_logit_softcapping=4.0,
    ),
}

# The mask whose gradients are recorded, and whether the model is in training mode for it.
GRADIENTS = {"sharing": ("left", False), "plain": ("none", False), "clipped": ("right", True)}


def randomise(model, seed):
    """Every parameter away from its default, at scales that keep activations alive."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("norm.weight"):
            value = 1 + 0.3 * noise
        elif "correct_output_scale" in name:
            value = 0.5 + 0.5 * noise
        elif "modality_router" in name:
            value = 2 * noise  # its input is divided by the hidden size
        elif "embed_tokens" in name:
            value = 0.3 * noise
        elif parameter.dim() == 2:
            value = noise * parameter.shape[1] ** -0.5
        else:
            value = 0.2 * noise
        parameter.data.copy_(value)


def batch(case, generator, batch_size=2, length=11, vocab=96):
    ids = torch.randint(3, vocab, (batch_size, length), generator=generator)
    labels = ids.clone()
    labels[:, :3] = -100
    labels[0, 6] = -100
    mask = torch.ones_like(ids)
    if case == "left":
        mask[0, :4] = 0
    if case == "right":
        mask[1, -3:] = 0
    ids[mask == 0] = 0
    labels[mask == 0] = -100
    return ids, mask, labels


def greedy(model, ids, mask, count):
    out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=0,
                         eos_token_id=None)
    return out[:, ids.shape[1]:].contiguous()


def record(name, seed):
    config = Gemma3nTextConfig(**CONFIGS[name])
    model = Gemma3nForCausalLM(config).eval()
    randomise(model, seed)
    out = OUT / f"text-{name}"
    shutil.rmtree(out, ignore_errors=True)
    model.save_pretrained(out)
    (out / "generation_config.json").unlink(missing_ok=True)
    saved = {k: v.clone() for k, v in model.state_dict().items()}

    generator = torch.Generator().manual_seed(seed + 1)
    values = {}
    gradient_case, training = GRADIENTS[name]
    for case in ("none", "left", "right"):
        ids, mask, labels = batch(case, generator)
        given = None if case == "none" else mask
        model.train(training and case == gradient_case)
        model.zero_grad()
        result = model(input_ids=ids, attention_mask=given, labels=labels)
        values |= {f"{case}.input_ids": ids, f"{case}.attention_mask": mask, f"{case}.labels": labels,
                   f"{case}.logits": result.logits.detach(), f"{case}.loss": result.loss.detach().reshape(1)}
        if case == gradient_case:
            result.loss.backward()
            for key, parameter in model.named_parameters():
                if "correct_output_scale" in key and not config.altup_correct_scale:
                    continue  # not in the graph
                assert parameter.grad.abs().max() > 1e-6, f"{name}: {key} has no gradient"
                values[f"grad.{key}"] = parameter.grad.clone()
        model.load_state_dict(saved)  # training clamps AltUp's coefficients in place
    model.eval()

    # Longer than the sliding window, so that the cache of sliding layers turns over.
    lengths, count = (7, 3, 9), 12
    prompts = [torch.randint(3, 96, (1, n), generator=generator) for n in lengths]
    for i, prompt in enumerate(prompts):
        values[f"generate.prompt.{i}"] = prompt
        values[f"generate.alone.{i}"] = greedy(model, prompt, torch.ones_like(prompt), count)
    longest = max(lengths)
    padded = torch.cat([torch.nn.functional.pad(p, (longest - p.shape[1], 0)) for p in prompts])
    mask = torch.stack([(torch.arange(longest) >= longest - n).long() for n in lengths])
    values["generate.batch"] = greedy(model, padded, mask, count)
    alone = torch.cat([values[f"generate.alone.{i}"] for i in range(len(prompts))])
    assert torch.equal(values["generate.batch"], alone), f"{name}: padding changes the reference's greedy ids"

    save_file({k: v.contiguous() for k, v in values.items()}, out / "values.safetensors")
    meta = {"seed": seed, "gradient": {"case": gradient_case, "training": training}}
    (out / "values.json").write_text(json.dumps(meta, indent=2) + "\n")
    for file in out.iterdir():
        file.chmod(0o644)
    size = sum(f.stat().st_size for f in out.iterdir())
    print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters, {size} bytes, "
          f"largest logit {values['none.logits'].abs().max():.2f}, ids {alone.tolist()[0]}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for index, name in enumerate(CONFIGS):
        record(name, seed=100 * (index + 1))
