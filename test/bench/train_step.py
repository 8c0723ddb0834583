"""transformers' training step, one at each line of standard input; answers with {"ms": .., "loss": ..}.

Argument: JSON { config, dtype, batch, length, labelled, threads }.
"""
import json
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
model = Gemma3nForCausalLM(Gemma3nTextConfig(**job["config"])).train()
torch.set_default_dtype(torch.float32)
parameters = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
ids = torch.randint(3, 30000, (job["batch"], job["length"]))
labels = ids.clone()
labels[:, : job["length"] - job["labelled"]] = -100

print(json.dumps({"parameters": sum(p.numel() for p in model.parameters())}), flush=True)
for _ in sys.stdin:
    begun = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    loss = model(input_ids=ids, labels=labels, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    value = loss.item()
    print(json.dumps({"ms": (time.perf_counter() - begun) * 1e3, "loss": value}), flush=True)
