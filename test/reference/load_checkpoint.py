"""Checks by hand that transformers loads a folder that Sluice saved, unchanged, and computes the same logits.

    python test/reference/load_checkpoint.py FOLDER VALUES.safetensors

VALUES holds input_ids and attention_mask, pixel_values where the model takes images, and the logits that Sluice gave.
Fails when a weight is missing or unexpected, when the loaded weights are not those of the files bit by bit, or when
the largest difference is above 1e-4 of the logits' scale. Logits of bfloat16 are compared in float32, with the weights
as they were rounded: VALUES must hold those.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

folder, values_path = map(Path, sys.argv[1:3])
torch.set_num_threads(1)
config = json.loads((folder / 'config.json').read_text())
model_class = getattr(transformers, config['architectures'][0])
model, info = model_class.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
faults = {key: sorted(names) for key, names in info.items() if names}
assert not faults, faults

values = load_file(values_path)
inputs = {name: values[name] for name in ('input_ids', 'attention_mask', 'pixel_values') if name in values}
with torch.no_grad():
    logits = model.eval()(**inputs).logits.float()
mask = inputs['attention_mask'].bool()
difference = (logits - values['logits'].float())[mask].abs().max().item()
scale = logits[mask].abs().max().item()
print(f'{model_class.__name__}: logits differ by {difference:.2e} of {scale:.2f}')
assert difference <= 1e-4 * scale

stored = {name: tensor for path in folder.glob('model*.safetensors') for name, tensor in load_file(path).items()}
loaded = model.state_dict()
if config.get('tie_word_embeddings', True):
    del loaded['lm_head.weight']
dead = sorted(stored.keys() - loaded.keys())
assert loaded.keys() <= stored.keys(), sorted(loaded.keys() - stored.keys())
assert all('.self_attn.' in name for name in dead), dead
assert all(torch.equal(loaded[name], stored[name].float()) for name in loaded)
print(f'{len(loaded)} tensors equal, {len(dead)} dead ones that transformers leaves out')
