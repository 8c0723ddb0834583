"""Values of the whole model from `transformers`, text, images and sound mixed, for test/models/multimodal-audio.test.ts.

Writes fixtures/reference/multimodal-NAME/ for each configuration below:
  config.json, model.safetensors   a checkpoint that transformers loads; weights that bfloat16 holds exactly
  values.safetensors  input_features, input_features_mask (true on real frames), pixel_values where there are images;
                      audio_features and their mask; per batch (left, right): input_ids, attention_mask, labels, logits,
                      loss, and for the first every parameter's gradient ("left.grad.NAME", of a large one
                      "left.sketch.NAME"; see vision.py); prompts and greedily generated ids

    python test/reference/multimodal_audio.py    # transformers 5.23, timm 1.0.31, torch 2.15, CPU, float32, one thread
"""

import copy
import json
import shutil

import torch
from safetensors.torch import save_file
from transformers import Gemma3nConfig, Gemma3nForConditionalGeneration

from multimodal import AUDIO, BOA, BOI, EOA, EOI, IMAGE, PAD, SHARED, batch, randomise
from vision import OUT, er, record_gradients, uir

S, F = "sliding_attention", "full_attention"
WORDS = dict(pad_token_id=PAD, eos_token_id=1, bos_token_id=2, vocab_size=96)
VISION = dict(
    vocab_size=8, vocab_offset=80,
    model_args=dict(stem_size=8, msfa_output_resolution=2,
                    block_args=[[er(8, stride=2)], [uir(8, 3, 0, stride=2), uir(8, 0, 3)]]),
)

# `rows`: of each row, its media in order and its last words; `frames`: real frames of each clip.
CONFIGS = {
    # Sound alone. Fewer frames than soft tokens in every clip, so that all of them end in the filler; sound's words reach
    # to the end of the vocabulary.
    "audio": dict(
        rows=[("AA", 5), ("A", 3), ("", 8)], frames=(61, 33, 90),
        config=dict(
            text_config=WORDS | dict(
                vocab_size_per_layer_input=80, hidden_size=24, hidden_size_per_layer_input=4, num_hidden_layers=4,
                num_attention_heads=2, num_key_value_heads=1, head_dim=8, sliding_window=5, layer_types=[S, F, S, F],
                num_kv_shared_layers=2, intermediate_size=[32, 40, 32, 24],
                activation_sparsity_pattern=[0.7, 0.0, 0.0, 0.0], laurel_rank=4, altup_num_inputs=3,
                final_logit_softcapping=10.0,
            ),
            audio_config=dict(
                vocab_size=8, vocab_offset=88, hidden_size=16, input_feat_size=16, conf_num_hidden_layers=2,
                conf_num_attention_heads=2, conf_attention_chunk_size=5, conf_attention_context_left=6,
                sscp_conv_channel_size=[6, 4],
            ),
            audio_soft_tokens_per_image=8,
        ),
    ),
    # Sound and images in any order, several of both in a row; sound's placeholder is no word of its own vocabulary, and
    # the longest clip fills every soft token.
    "mixed": dict(
        rows=[("AIA", 4), ("IA", 6), ("I", 3), ("A", 2)], frames=(48, 9, 20, 31),
        config=dict(
            text_config=WORDS | dict(
                vocab_size_per_layer_input=96, hidden_size=16, hidden_size_per_layer_input=4, num_hidden_layers=3,
                num_attention_heads=2, num_key_value_heads=2, head_dim=8, sliding_window=4, layer_types=[S, F, S],
                num_kv_shared_layers=1, intermediate_size=24, laurel_rank=4, altup_num_inputs=2, altup_active_idx=1,
            ),
            audio_config=dict(
                vocab_size=8, vocab_offset=88, hidden_size=12, input_feat_size=10, conf_num_hidden_layers=1,
                conf_num_attention_heads=3, conf_attention_chunk_size=4, conf_attention_context_left=5,
                conf_attention_context_right=2, conf_attention_logit_cap=5.0, conf_conv_kernel_size=3,
                conf_reduction_factor=2, conf_residual_weight=0.8, rms_norm_eps=1e-3, sscp_conv_channel_size=[4, 4],
                sscp_conv_stride_size=[[2, 2], [2, 1]],
            ),
            audio_token_id=74,
            audio_soft_tokens_per_image=6,
        ),
    ),
}


def row(generator, media, length, config):
    """Random words with media among them; the last of them are labelled."""
    def words(count):
        return torch.randint(3, 70, (count,), generator=generator).tolist()

    ids = [2] + words(2)
    for kind in media:
        if kind == "A":
            ids += [BOA] + [config["audio_token_id"]] * config["audio_soft_tokens_per_image"] + [EOA] + words(1)
        else:
            ids += [BOI] + [config["image_token_id"]] * config["vision_soft_tokens_per_image"] + [EOI] + words(1)
    ids += words(length)
    return ids, [-100] * (len(ids) - length) + ids[len(ids) - length:]


def greedy(model, ids, mask, media, count):
    out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=PAD,
                         eos_token_id=None, **media)
    return out[:, ids.shape[1]:].contiguous()


def record(name, seed):
    spec = CONFIGS[name]
    config_dict = dict(image_token_id=IMAGE, vision_config=VISION, vision_soft_tokens_per_image=4) | SHARED
    config_dict |= dict(audio_token_id=AUDIO) | spec["config"]
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
    rows = [row(generator, media, length, written) for media, length in spec["rows"]]
    kinds = "".join(media for media, _ in spec["rows"])
    frames = spec["frames"]
    assert kinds.count("A") == len(frames)
    features = torch.randn((len(frames), max(frames), written["audio_config"]["input_feat_size"]), generator=generator)
    media = {"input_features": features * 1.5 - 2,
             "input_features_mask": torch.arange(max(frames)) < torch.tensor(frames).unsqueeze(1)}
    if "I" in kinds:
        media["pixel_values"] = torch.rand((kinds.count("I"), 3, 32, 32), generator=generator)
    sound = model.model.get_audio_features(media["input_features"], ~media["input_features_mask"], return_dict=True)
    values = media | {"audio_features": sound.pooler_output.detach(), "audio_features_mask": ~sound.audio_mel_mask}

    for side in ("left", "right"):
        ids, mask, labels = batch(rows, side)
        model.zero_grad()
        result = model(input_ids=ids, attention_mask=mask, labels=labels, **media)
        result.loss.backward()
        values |= {f"{side}.input_ids": ids, f"{side}.attention_mask": mask, f"{side}.labels": labels,
                   f"{side}.logits": result.logits.detach(), f"{side}.loss": result.loss.detach().reshape(1)}
        if side != "left":
            continue  # one batch's gradients suffice, and files stay small
        recorded = {}
        named = [(k, p) for k, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
        skipped = [k for k, _ in model.named_parameters() if k not in dict(named)]
        assert "I" not in kinds or not skipped, skipped
        assert all("vision" in k for k in skipped), skipped
        record_gradients(named, recorded, generator)
        values |= {f"{side}.{k}": v for k, v in recorded.items()}

    count = 6
    seen = {"A": 0, "I": 0}
    for index, ((ids, _), (kinds, _)) in enumerate(zip(rows, spec["rows"])):
        own = {}
        for kind, keys in (("A", ("input_features", "input_features_mask")), ("I", ("pixel_values",))):
            some = slice(seen[kind], seen[kind] + kinds.count(kind))
            seen[kind] = some.stop
            if some.start < some.stop:
                own |= {key: media[key][some] for key in keys}
        prompt = torch.tensor([ids])
        values[f"generate.prompt.{index}"] = prompt
        values[f"generate.alone.{index}"] = greedy(model, prompt, torch.ones_like(prompt), own, count)
    ids, mask, _ = batch(rows, "left")
    together = greedy(model, ids, mask, media, count)
    alone = torch.cat([values[f"generate.alone.{i}"] for i in range(len(rows))])
    assert torch.equal(together, alone), "padding changes the reference's greedy ids"
    save_file({k: v.contiguous() for k, v in values.items()}, out / "values.safetensors")
    for file in out.iterdir():
        file.chmod(0o644)
    total = sum(f.stat().st_size for f in out.iterdir())
    print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters, {total} bytes, audio features "
          f"{tuple(values['audio_features'].shape)}, largest logit {values['left.logits'].abs().max():.2f}, "
          f"loss {values['left.loss'].item():.3f}, ids {alone.tolist()}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for index, name in enumerate(CONFIGS):
        record(name, seed=700 * (index + 1))
