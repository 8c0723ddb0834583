"""transformers' training step, with PEFT's adapter, one at each line of standard input.

Argument: JSON { config, dtype, batch, length, labelled, threads, adapter: "lora" | "dora" | null }.
Answers with a line of {"ms", "cpuMs", "loss", "peakBytes"}.
"""
import json
import resource
import sys
import time

import torch
from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

job = json.loads(sys.argv[1])
# JSON from JavaScript has no 0.0, which transformers insists on.
job["config"]["activation_sparsity_pattern"] = [float(x) for x in job["config"]["activation_sparsity_pattern"]]
torch.set_num_threads(job["threads"])
torch.manual_seed(0)
torch.set_default_dtype(getattr(torch, job["dtype"]))
model = Gemma3nForCausalLM(Gemma3nTextConfig(**job["config"]))
torch.set_default_dtype(torch.float32)
if job["adapter"]:
    import peft

    targets = r".*layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj"
    adapter = peft.LoraConfig(r=8, lora_alpha=16, target_modules=targets, use_dora=job["adapter"] == "dora")
    model = peft.get_peft_model(model, adapter)
model.train()
parameters = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
ids = torch.randint(3, 30000, (job["batch"], job["length"]))
labels = ids.clone()
labels[:, : job["length"] - job["labelled"]] = -100

print(json.dumps({"parameters": sum(p.numel() for p in model.parameters())}), flush=True)
for _ in sys.stdin:
    begun, usage = time.perf_counter(), time.process_time()
    optimizer.zero_grad(set_to_none=True)
    loss = model(input_ids=ids, labels=labels, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    value = loss.item()
    ms = (time.perf_counter() - begun) * 1e3
    cpu = (time.process_time() - usage) * 1e3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"ms": ms, "cpuMs": cpu, "loss": value, "peakBytes": peak}), flush=True)
