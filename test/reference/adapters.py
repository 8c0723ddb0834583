"""Values of adapters from PEFT, for test/peft/*.test.ts.

Writes fixtures/reference/peft-NAME/ for each case below, on the models of text.py:
  adapter_config.json, adapter_model.safetensors   as PEFT saves them, every tensor away from its default
  values.safetensors   input_ids, attention_mask, labels; logits and loss in evaluation; the gradient of every tensor that
                       learns ("grad.NAME"); losses of 10 steps of AdamW and the tensors after them ("trained.NAME")
  values.json          the base, and how the steps were made

Dropout is 0: its draws are another generator's. "python test/reference/adapters.py check DIR BASE" prints the logits that
PEFT gives with the adapter in DIR for the ids of DIR/ids.json, as JSON.

    python test/reference/adapters.py      # peft 0.21, transformers 5.23, torch 2.15, CPU, float32, one thread
"""

import json
import shutil
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import Gemma3nForCausalLM

from text import OUT, batch

TEXT = r".*\.layers\.\d+\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj"
STEPS, LR, DECAY = 10, 1e-3, 0.01

CASES = {
    "lora": ("sharing", dict(r=4, lora_alpha=8, target_modules=TEXT)),
    "rslora": ("plain", dict(r=3, lora_alpha=6, target_modules=TEXT, use_rslora=True,
                             rank_pattern={"layers.1.self_attn.q_proj": 5, r"mlp\.down_proj": 2},
                             alpha_pattern={"o_proj": 9, r"layers\.0\..*v_proj": 4})),
    "dora": ("plain", dict(r=4, lora_alpha=8, target_modules=TEXT, use_dora=True)),
    "every": ("clipped", dict(r=2, lora_alpha=3, target_modules="all-linear")),
    "saved": ("sharing", dict(r=2, lora_alpha=2, use_dora=True, target_modules=["q_proj", "up_proj"],
                              modules_to_save=["embed_tokens", "post_laurel_norm"])),
    "pissa": ("sharing", dict(r=3, lora_alpha=6, target_modules=["v_proj", "down_proj"], init_lora_weights="pissa")),
}


def adapted(name, seed):
    base, options = CASES[name]
    model = Gemma3nForCausalLM.from_pretrained(OUT / f"text-{base}")
    torch.manual_seed(seed)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
    generator = torch.Generator().manual_seed(seed + 1)
    for key, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        if "lora_B" in key:
            parameter.data += 0.1 * noise
        elif "magnitude" in key:
            parameter.data *= 1 + 0.1 * noise
        else:
            parameter.data += 0.05 * noise
    return base, model


def record(name, seed):
    base, model = adapted(name, seed)
    out = OUT / f"peft-{name}"
    shutil.rmtree(out, ignore_errors=True)
    model.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    config = json.loads((out / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = f"fixtures/reference/text-{base}"
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")

    ids, mask, labels = batch("left", torch.Generator().manual_seed(seed + 2))
    inputs = dict(input_ids=ids, attention_mask=mask, labels=labels)
    values = dict(inputs)
    model.eval()
    with torch.no_grad():
        result = model(**inputs)
    values |= dict(logits=result.logits, loss=result.loss.reshape(1))

    named = get_peft_model_state_dict(model, state_dict={k: p for k, p in model.named_parameters()})
    named = {key: parameter for key, parameter in named.items() if parameter.requires_grad}
    optimizer = torch.optim.AdamW(named.values(), lr=LR, weight_decay=DECAY)
    model.train()
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        losses.append(loss.item())
        if step == 0:
            values |= {f"grad.{key}": p.grad.clone() for key, p in named.items() if p.grad is not None}
        optimizer.step()
    values |= {f"trained.{key}": p.detach().clone() for key, p in named.items()}
    values["losses"] = torch.tensor(losses)
    save_file({key: value.contiguous() for key, value in values.items()}, out / "values.safetensors")
    meta = dict(base=f"text-{base}", steps=STEPS, lr=LR, weightDecay=DECAY, seed=seed)
    (out / "values.json").write_text(json.dumps(meta) + "\n")
    for file in out.iterdir():
        file.chmod(0o644)
    print(name, len(named), "tensors,", sum(file.stat().st_size for file in out.iterdir()), "bytes, losses", losses)


def check(folder, base):
    model = PeftModel.from_pretrained(Gemma3nForCausalLM.from_pretrained(base), folder).eval()
    with open(f"{folder}/ids.json") as file:
        ids = torch.tensor(json.load(file))
    with torch.no_grad():
        print(json.dumps(model(input_ids=ids).logits.flatten().tolist()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["check"]:
        check(*sys.argv[2:])
    else:
        for index, case in enumerate(CASES):
            record(case, seed=2000 + 10 * index)
