"""Writes fixtures/reference/checkpoint: files as Python's safetensors writes them.

    python test/reference/checkpoint.py

kinds.safetensors holds one tensor of each dtype that Sluice reads, with the values of kinds.json; plain.safetensors
float32 and bfloat16 alone, to compare bytes with what Sluice writes.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

folder = Path(__file__).parents[2] / 'fixtures' / 'reference' / 'checkpoint'

kinds = {
    'float64': torch.tensor([[1.5, -2.25], [1e300, 0.0]], dtype=torch.float64),
    'float32': torch.tensor([0.1, -3.0, 1e-30]),
    'bfloat16': torch.tensor([1.0, -0.3359375, 3e38], dtype=torch.bfloat16),
    'float16': torch.tensor([[0.5], [65504.0]], dtype=torch.float16),
    'int64': torch.tensor([2**52 + 1, -1]),
    'int32': torch.tensor([7, -8], dtype=torch.int32),
    'uint8': torch.tensor([0, 255, 3], dtype=torch.uint8),
    'bool': torch.tensor([True, False, True]),
    'scalar': torch.tensor(2.5),
    'empty': torch.zeros(0, 4),
}
plain = {
    'b.weight': torch.arange(6, dtype=torch.float32).reshape(2, 3) / 3,
    'a.weight': torch.arange(3, dtype=torch.float32),
    'c.weight': (torch.arange(5) / 7).to(torch.bfloat16),
}

folder.mkdir(parents=True, exist_ok=True)
save_file(kinds, folder / 'kinds.safetensors', metadata={'format': 'pt', 'note': 'é'})
values = {name: {'shape': list(t.shape), 'values': t.flatten().tolist()} for name, t in kinds.items()}
(folder / 'kinds.json').write_text(json.dumps(values, indent=1) + '\n')
save_file(plain, folder / 'plain.safetensors', metadata={'format': 'pt'})
