"""Values of decoding from `transformers`, for test/generate/*.test.ts.

Writes fixtures/reference/generate/:
  filters.json         per case the options and the names of its tensors in filters.safetensors: "CASE.scores" and, for
                       the repetition penalty, "CASE.ids" and "CASE.mask"; "CASE.filtered" is what the processors of a
                       `generate` call with these options make of them (-inf where a token is filtered out)
  filters.safetensors
  penalised.json       greedy ids with a repetition penalty of the models text-NAME and multimodal-NAME, prompt by
                       prompt and in a left-padded batch

    python test/reference/generate.py      # transformers 5.23, torch 2.15, CPU, float32, one thread
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3nForCausalLM, Gemma3nForConditionalGeneration, GenerationConfig

OUT = Path(__file__).resolve().parents[2] / "fixtures" / "reference"
HERE = OUT / "generate"

# Options as transformers spells them. do_sample is true unless stated.
OPTIONS = [
    {},
    {"temperature": 0.3}, {"temperature": 1.7},
    {"top_k": 1}, {"top_k": 7}, {"top_k": 1000},
    {"top_p": 0.1}, {"top_p": 0.5}, {"top_p": 0.9}, {"top_p": 0.999}, {"top_p": 1e-6},
    {"min_p": 0.0}, {"min_p": 0.02}, {"min_p": 0.3}, {"min_p": 1.0},
    {"repetition_penalty": 1.3}, {"repetition_penalty": 0.7},
    {"top_k": 12, "top_p": 0.8}, {"temperature": 2.5, "top_p": 0.7}, {"temperature": 0.5, "top_k": 20, "min_p": 0.1},
    {"top_p": 0.9, "min_p": 0.05},
    {"temperature": 1.4, "top_k": 30, "top_p": 0.95, "min_p": 0.02, "repetition_penalty": 1.2},
    {"do_sample": False, "temperature": 0.2, "top_k": 3, "top_p": 0.5, "repetition_penalty": 1.5},
]


def scores_of(kind, generator, rows=3, vocab=64):
    noise = torch.randn(rows, vocab, generator=generator)
    if kind == "plain":
        return 3 * noise
    if kind == "sharp":  # nearly all of the mass on a few
        return 12 * noise
    if kind == "flat":
        return 0.05 * noise
    if kind == "tied":  # as logits in bfloat16 are
        return (2 * noise).round()
    if kind == "barred":  # with tokens that are impossible from the start
        return (3 * noise).masked_fill(torch.rand(rows, vocab, generator=generator) < 0.5, -torch.inf)
    if kind == "wide":  # more words than the nucleus is first looked for among, some rows flat
        noise = torch.randn(rows, 1500, generator=generator)
        return noise * torch.tensor([6.0, 1.5, 0.1])[:, None]
    raise ValueError(kind)


def filters(model, generator):
    cases, tensors = [], {}
    for kind in ("plain", "sharp", "flat", "tied", "barred", "wide"):
        some = OPTIONS if kind != "wide" else [o for o in OPTIONS if "top_p" in o]
        for options in some:
            name = f"{kind}.{len(cases)}"
            scores = scores_of(kind, generator)
            rows, vocab = scores.shape
            ids = torch.randint(0, vocab, (rows, 9), generator=generator)
            mask = torch.ones_like(ids)
            mask[0, :4] = 0
            ids[mask == 0] = 5  # an id that the penalty must not touch for being padding
            ids[0, 4:][ids[0, 4:] == 5] = 6
            config = GenerationConfig(**{"do_sample": True, "top_k": None, "top_p": None, "temperature": None} | options)
            processors = model._get_logits_processor(config, input_ids_seq_length=9, device="cpu",
                                                     model_kwargs={"attention_mask": mask})
            tensors[f"{name}.scores"] = scores
            tensors[f"{name}.filtered"] = processors(ids, scores.clone())
            if "repetition_penalty" in options:
                tensors |= {f"{name}.ids": ids, f"{name}.mask": mask}
            cases.append({"name": name, "options": options})
    save_file({k: v.contiguous() for k, v in tensors.items()}, HERE / "filters.safetensors")
    (HERE / "filters.json").write_text(json.dumps(cases, indent=1) + "\n")
    print(f"{len(cases)} cases of filters")


def greedy(model, ids, mask, penalty, count, **media):
    out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=0,
                         eos_token_id=None, repetition_penalty=penalty, **media)
    return out[:, ids.shape[1]:].tolist()


def penalised(name, cls, penalty=1.4, count=12):
    folder = OUT / name
    model = cls.from_pretrained(folder, dtype=torch.float32).eval()
    values = load_file(folder / "values.safetensors")
    made, prompts, images = [], [], []
    for i in range(sum(key.startswith("generate.prompt.") for key in values)):
        prompt = values[f"generate.prompt.{i}"].reshape(1, -1)
        pixels = values["pixel_values"][[[0, 1], [2]][i]] if i < 2 and "pixel_values" in values else None
        media = {} if pixels is None else {"pixel_values": pixels}
        made.append(greedy(model, prompt, torch.ones_like(prompt), penalty, count, **media)[0])
        prompts.append(prompt)
        images += [] if pixels is None else [pixels]
    longest = max(p.shape[1] for p in prompts)
    padded = torch.cat([torch.nn.functional.pad(p, (longest - p.shape[1], 0)) for p in prompts])
    mask = torch.stack([(torch.arange(longest) >= longest - p.shape[1]).long() for p in prompts])
    media = {"pixel_values": torch.cat(images)} if images else {}
    batch = greedy(model, padded, mask, penalty, count, **media)
    assert batch == made, f"{name}: padding changes the reference's ids"
    plain = greedy(model, padded, mask, 1.0, count, **media)
    assert plain != made, f"{name}: the penalty changes nothing"
    return {"penalty": penalty, "ids": made}


if __name__ == "__main__":
    torch.set_num_threads(1)
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir(parents=True)
    text = Gemma3nForCausalLM.from_pretrained(OUT / "text-sharing")
    filters(text, torch.Generator().manual_seed(7))
    result = {name: penalised(name, Gemma3nForCausalLM) for name in ("text-sharing", "text-plain", "text-clipped")}
    result |= {name: penalised(name, Gemma3nForConditionalGeneration) for name in ("multimodal-plain", "multimodal-wide")}
    (HERE / "penalised.json").write_text(json.dumps(result) + "\n")
    for file in HERE.iterdir():
        file.chmod(0o644)
    print(sum(f.stat().st_size for f in HERE.iterdir()), "bytes")
