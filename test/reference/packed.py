"""Values of packed sequences from `transformers`, for test/models/packed-reference.test.ts.

Writes fixtures/reference/text-packed.safetensors, of the model in text-sharing (see text.py): two rows of several sequences,
shorter and longer than the sliding window of 4, by position_ids that begin again in each; input_ids, position_ids, labels
(-100 at each sequence's first token), logits, the summed loss, and the gradient of every attention parameter and norm.
With a cache the reference would not tell the sequences apart, so it has none (use_cache=False).
The script fails unless the reference's own logits are those of its sequences alone.

    python test/reference/packed.py          # transformers 5.23, torch 2.15, CPU, float32, one thread, eager attention
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Gemma3nForCausalLM

OUT = Path(__file__).resolve().parents[2] / "fixtures" / "reference"
ROWS = [[7, 1, 2, 13, 5], [17, 3, 8]]

torch.set_num_threads(1)
model = Gemma3nForCausalLM.from_pretrained(OUT / "text-sharing", attn_implementation="eager").eval()
generator = torch.Generator().manual_seed(5)
ids = torch.randint(3, 96, (len(ROWS), sum(ROWS[0])), generator=generator)
positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in ROWS])
labels = ids.masked_fill(positions == 0, -100)

logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
for row, lengths in enumerate(ROWS):
    start = 0
    for n in lengths:
        alone = model(input_ids=ids[row:row + 1, start:start + n]).logits[0]
        difference = (alone - logits[row, start:start + n]).abs().max() / alone.abs().max()
        assert difference < 1e-5, f"row {row}, {start}: the reference's own sequences differ by {difference}"
        start += n

loss = torch.nn.functional.cross_entropy(
    logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), ignore_index=-100, reduction="sum")
loss.backward()
gradients = {f"grad.{key}": parameter.grad.clone() for key, parameter in model.named_parameters()
             if ("self_attn" in key or "norm" in key) and parameter.grad is not None and parameter.grad.abs().max() > 0}
values = {"input_ids": ids, "position_ids": positions, "labels": labels, "logits": logits.detach(),
          "loss": loss.detach().reshape(1), **gradients}
path = OUT / "text-packed.safetensors"
save_file({key: value.contiguous() for key, value in values.items()}, path)
path.chmod(0o644)
print(f"{path.stat().st_size} bytes, {len(gradients)} gradients, loss {loss.item():.4f}")
