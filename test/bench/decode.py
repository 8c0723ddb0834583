"""transformers' prefill and decode, one round at each line of standard input: a prompt is read, then tokens are chosen
greedily, a forward each, with transformers' own cache. Answers with {"prefillMs": .., "decodeMs": ..}.

Argument: JSON { config, dtype, batch, prompt, tokens, threads }. The loop is what `generate` does, without its checks.
"""
import json
import sys
import time

import torch
from transformers import DynamicCache, Gemma3nForCausalLM, Gemma3nTextConfig

job = json.loads(sys.argv[1])
# JSON from JavaScript has no 0.0, which transformers insists on.
job["config"]["activation_sparsity_pattern"] = [float(x) for x in job["config"]["activation_sparsity_pattern"]]
torch.set_num_threads(job["threads"])
torch.manual_seed(0)
torch.set_default_dtype(getattr(torch, job["dtype"]))
model = Gemma3nForCausalLM(Gemma3nTextConfig(**job["config"])).eval()
torch.set_default_dtype(torch.float32)


@torch.inference_mode()
def round_of(prompt):
    cache = DynamicCache(config=model.config)
    begun = time.perf_counter()
    logits = model(input_ids=prompt, past_key_values=cache, logits_to_keep=1).logits
    ids = logits[:, -1].argmax(-1, keepdim=True)
    ids.tolist()
    read = time.perf_counter()
    for _ in range(job["tokens"]):
        logits = model(input_ids=ids, past_key_values=cache, logits_to_keep=1).logits
        ids = logits[:, -1].argmax(-1, keepdim=True)
        ids.tolist()
    return {"prefillMs": (read - begun) * 1e3, "decodeMs": (time.perf_counter() - read) * 1e3}


print(json.dumps({"parameters": sum(p.numel() for p in model.parameters())}), flush=True)
for _ in sys.stdin:
    prompt = torch.randint(3, 30000, (job["batch"], job["prompt"]))
    print(json.dumps(round_of(prompt)), flush=True)
