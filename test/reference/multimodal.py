"""Values of the whole model from `transformers`, text and images mixed, for test/models/multimodal.test.ts.

Writes fixtures/reference/multimodal-NAME/ for each configuration below:
  config.json, model.safetensors   a checkpoint that transformers loads; weights that bfloat16 holds exactly
  values.safetensors  image_features; per batch (left, right, text): input_ids, attention_mask, labels, pixel_values,
                      logits, loss, and every parameter's gradient ("BATCH.grad.NAME", of a large one
                      "BATCH.sketch.NAME"; see vision.py); prompts and greedily generated ids

    python test/reference/multimodal.py      # transformers 5.23, timm 1.0.31, torch 2.15, CPU, float32, one thread
"""

import copy
import json
import shutil

import torch
from safetensors.torch import save_file
from transformers import Gemma3nConfig, Gemma3nForConditionalGeneration

from vision import OUT, er, mqa, record_gradients, uir

S, F = "sliding_attention", "full_attention"
PAD, BOI, EOI, IMAGE, BOA, EOA, AUDIO = 0, 70, 80, 81, 71, 88, 89

CONFIGS = {
    # Default placement of the vocabularies: text, then vision, then audio; the image token lies in vision's.
    "plain": dict(
        image_size=(64, 64),
        config=dict(
            text_config=dict(
                vocab_size=96, vocab_size_per_layer_input=80, hidden_size=24, hidden_size_per_layer_input=4,
                num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1, head_dim=8, sliding_window=5,
                layer_types=[S, F, S, F], num_kv_shared_layers=2, intermediate_size=[32, 40, 32, 24],
                activation_sparsity_pattern=[0.7, 0.0, 0.0, 0.0], laurel_rank=4, altup_num_inputs=3,
                final_logit_softcapping=10.0, pad_token_id=PAD, eos_token_id=1, bos_token_id=2,
            ),
            vision_config=dict(
                vocab_size=8, vocab_offset=80,
                model_args=dict(
                    stem_size=8, msfa_output_resolution=2,
                    block_args=[
                        [er(8, stride=2), er(8)],
                        [uir(8, 3, 5, stride=2), mqa(8, 2, 4, kv_stride=2), uir(8, 5, 0)],
                        [uir(8, 5, 5, stride=2), mqa(8, 2, 4), uir(8, 0, 0)],
                    ],
                ),
            ),
            vision_soft_tokens_per_image=4,
        ),
    ),
    # Another size of image, more soft tokens, an image token outside vision's vocabulary.
    "wide": dict(
        image_size=(40, 56),
        config=dict(
            text_config=dict(
                vocab_size=96, vocab_size_per_layer_input=96, hidden_size=16, hidden_size_per_layer_input=4,
                num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2, head_dim=8, sliding_window=4,
                layer_types=[S, F, S], num_kv_shared_layers=1, intermediate_size=24, laurel_rank=4,
                altup_num_inputs=2, altup_active_idx=1, pad_token_id=PAD, eos_token_id=1, bos_token_id=2,
            ),
            vision_config=dict(
                vocab_size=8, vocab_offset=80, rms_norm_eps=1e-3,
                model_args=dict(
                    stem_size=8, msfa_output_resolution=3, layer_scale_init_value=0.5,
                    block_args=[[er(8, stride=2)], [uir(8, 3, 0, stride=2), mqa(8, 2, 4), uir(8, 0, 3)]],
                ),
            ),
            image_token_id=75,
            vision_soft_tokens_per_image=9,
        ),
    ),
}

SHARED = dict(boi_token_id=BOI, eoi_token_id=EOI, boa_token_id=BOA, eoa_token_id=EOA, audio_token_id=AUDIO)
AUDIO_CONFIG = dict(
    vocab_size=8, vocab_offset=88, hidden_size=16, input_feat_size=16, conf_num_hidden_layers=1,
    conf_num_attention_heads=2, sscp_conv_channel_size=[4, 4],
)


def randomise(model, seed):
    """Every parameter away from its default, at scales that keep signals alive, rounded to bfloat16."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith(("norm.weight", "bn.weight", "bn1.weight", "bn2.weight")):
            value = 1 + 0.3 * noise
        elif name.endswith("gamma") or "correct_output_scale" in name:
            value = 0.5 + 0.3 * noise
        elif "modality_router" in name:
            value = 2 * noise  # its input is divided by the hidden size
        elif "embed_tokens" in name:
            value = 0.3 * noise
        elif parameter.dim() > 1 and "embedding.weight" not in name:
            value = noise * parameter[0].numel() ** -0.5
        else:
            value = 0.3 * noise
        parameter.data.copy_(value.bfloat16())


def row(generator, images, soft_tokens, image_token, length):
    """Random words with `images` pictures among them, and hard tokens of both other vocabularies."""
    def words(count):
        return torch.randint(3, 70, (count,), generator=generator).tolist()

    ids = [2] + words(2)
    for _ in range(images):
        ids += [BOI] + [image_token] * soft_tokens + [EOI] + words(1)
    ids += [BOA, 91, EOA] + words(length)
    labels = [-100] * (len(ids) - length) + ids[len(ids) - length:]
    return ids, labels


def batch(rows, side):
    longest = max(len(ids) for ids, _ in rows)

    def pad(values, filler):
        filling = [filler] * (longest - len(values))
        return filling + values if side == "left" else values + filling

    ids = torch.tensor([pad(ids, PAD) for ids, _ in rows])
    labels = torch.tensor([pad(labels, -100) for _, labels in rows])
    mask = torch.tensor([pad([1] * len(ids), 0) for ids, _ in rows])
    return ids, mask, labels


def greedy(model, ids, mask, pixels, count):
    images = {} if pixels is None else {"pixel_values": pixels}
    out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=PAD,
                         eos_token_id=None, **images)
    return out[:, ids.shape[1]:].contiguous()


def record(name, seed):
    image_size = CONFIGS[name]["image_size"]
    config_dict = dict(image_token_id=IMAGE, audio_config=AUDIO_CONFIG) | SHARED | CONFIGS[name]["config"]
    # The written configuration is taken before the model is built: timm alters the blocks that it is given.
    written = Gemma3nConfig(**copy.deepcopy(config_dict)).to_dict()
    written["architectures"] = ["Gemma3nForConditionalGeneration"]
    model = Gemma3nForConditionalGeneration(Gemma3nConfig(**copy.deepcopy(config_dict))).eval()
    randomise(model, seed)
    out = OUT / f"multimodal-{name}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "config.json").write_text(json.dumps(written, indent=1) + "\n")
    weights = {k: v.bfloat16().contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})

    generator = torch.Generator().manual_seed(seed + 1)
    soft_tokens, image_token = written["vision_soft_tokens_per_image"], written["image_token_id"]
    pixels = torch.rand((3, 3, *image_size), generator=generator)
    rows = [row(generator, images, soft_tokens, image_token, length) for images, length in ((2, 5), (1, 3), (0, 8))]
    values = {"pixel_values": pixels,
              "image_features": model.get_image_features(pixels, return_dict=True).pooler_output.detach()}
    batches = {"left": (*batch(rows, "left"), pixels), "right": (*batch(rows, "right"), pixels),
               "text": (*batch(rows[2:], "right"), None)}
    for case, (ids, mask, labels, images) in batches.items():
        model.zero_grad()
        result = model(input_ids=ids, attention_mask=mask, labels=labels, pixel_values=images)
        result.loss.backward()
        values |= {f"{case}.input_ids": ids, f"{case}.attention_mask": mask, f"{case}.labels": labels,
                   f"{case}.logits": result.logits.detach(), f"{case}.loss": result.loss.detach().reshape(1)}
        if case != "left":
            continue  # one batch's gradients suffice, and files stay small
        recorded = {}
        named = [(k, p) for k, p in model.named_parameters()
                 if p.grad is not None and p.grad.abs().max() > 0]
        skipped = [k for k, _ in model.named_parameters() if k not in dict(named)]
        assert all(k.startswith("model.audio_tower") or k == "model.embed_audio.soft_embedding_norm.weight"
                   for k in skipped), skipped
        record_gradients(named, recorded, generator)
        values |= {f"{case}.{k}": v for k, v in recorded.items()}

    count = 6
    for index, (ids, _) in enumerate(rows):
        images = pixels[[0, 1]] if index == 0 else pixels[[2]] if index == 1 else None
        prompt = torch.tensor([ids])
        values[f"generate.prompt.{index}"] = prompt
        values[f"generate.alone.{index}"] = greedy(model, prompt, torch.ones_like(prompt), images, count)
    ids, mask, _, _ = batches["left"]
    together = greedy(model, ids, mask, pixels, count)
    alone = torch.cat([values[f"generate.alone.{i}"] for i in range(len(rows))])
    assert torch.equal(together, alone), "padding changes the reference's greedy ids"
    save_file({k: v.contiguous() for k, v in values.items()}, out / "values.safetensors")
    for file in out.iterdir():
        file.chmod(0o644)
    total = sum(f.stat().st_size for f in out.iterdir())
    print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters, {total} bytes, largest logit "
          f"{values['left.logits'].abs().max():.2f}, loss {values['left.loss'].item():.3f}, ids {alone.tolist()}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for index, name in enumerate(CONFIGS):
        record(name, seed=500 * (index + 1))
