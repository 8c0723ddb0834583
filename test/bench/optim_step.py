"""One clipped step of torch.optim.AdamW(fused=True) for each line of its input: what optim.bench.ts compares with."""

import json
import sys
import time

import torch

job = json.loads(sys.argv[1])
torch.set_num_threads(job['threads'])
dtype = getattr(torch, job['dtype'])
parameters = [torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in job['shapes']]
for parameter in parameters:
    parameter.grad = torch.randn_like(parameter)
optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
print(json.dumps({'ms': 0}), flush=True)
for _ in sys.stdin:
    begun = time.perf_counter()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    print(json.dumps({'ms': (time.perf_counter() - begun) * 1000}), flush=True)
