"""Checks by hand that checkpoints go from transformers through Sluice to transformers without a bit's difference.

    python test/reference/round_trip.py

Each recorded checkpoint is loaded by transformers and saved (float32 and bfloat16, one file and shards), loaded and
saved by Sluice (the built package in dist), also with its embeddings mapped, and loaded by transformers again: no weight
may be missing or unexpected, every tensor and every logit must be equal bit by bit.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

root = Path(__file__).parents[2]
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()

SLUICE = """
import { fromPretrained, savePretrained } from '%s';
for (const [from, to, embeddings] of JSON.parse(process.argv[1]))
  await savePretrained(await fromPretrained(from, { embeddings }), to, { maxShardBytes: 60000 });
""" % (root / 'dist' / 'index.js').as_uri()


def through_sluice(jobs):
    subprocess.run(['node', '--input-type=module', '-e', SLUICE, json.dumps(jobs)], check=True, cwd=root)


def load(folder, dtype=None):
    config = json.loads((folder / 'config.json').read_text())
    model_class = getattr(transformers, config['architectures'][0])
    keywords = {} if dtype is None else {'dtype': dtype}
    model, info = model_class.from_pretrained(folder, output_loading_info=True, **keywords)
    faults = {key: sorted(map(str, names)) for key, names in info.items() if names}
    assert not faults, (folder, faults)
    return model.eval()


def logits(model, values):
    left = {key.split('.')[1]: value for key, value in values.items() if key.startswith('left.')}
    inputs = {'input_ids': left['input_ids'], 'attention_mask': left['attention_mask']}
    for name in ('pixel_values', 'input_features', 'input_features_mask'):
        given = left.get(name, values.get(name))
        if given is not None:
            inputs[name] = given.to(model.dtype) if given.is_floating_point() else given
    with torch.no_grad():
        return model(**inputs).logits


count = 0
with tempfile.TemporaryDirectory() as temporary:
    for name in sys.argv[1:] or sorted(
        path.parent.name for path in (root / 'fixtures' / 'reference').glob('*/model.safetensors')
        if path.parent.name.startswith(('text-', 'multimodal-'))
    ):
        source = root / 'fixtures' / 'reference' / name
        values = load_file(source / 'values.safetensors')
        for dtype in (torch.float32, torch.bfloat16):
            for shard in ('1GB', '100KB'):
                before = load(source, dtype)
                folder = Path(temporary) / f'{name}-{dtype}-{shard}'
                # transformers cannot write the configuration of a tower whose blocks are given: the recorded one stands in
                type(before.config).save_pretrained = lambda *_, **__: None
                before.save_pretrained(folder / 'theirs', max_shard_size=shard)
                config = json.loads((source / 'config.json').read_text())
                config['dtype'] = str(dtype).removeprefix('torch.')
                (folder / 'theirs' / 'config.json').write_text(json.dumps(config))
                through_sluice([[str(folder / 'theirs'), str(folder / place), place] for place in ('device', 'mapped')])
                for place in ('device', 'mapped'):
                    after = load(folder / place)
                    assert after.dtype == dtype, after.dtype
                    wanted, got = before.state_dict(), after.state_dict()
                    assert wanted.keys() == got.keys()
                    different = [key for key in wanted if not torch.equal(wanted[key], got[key])]
                    assert not different, different
                    assert torch.equal(logits(before, values), logits(after, values)), (name, dtype, place)
                    count += len(wanted)
        print(name, 'equal', flush=True)
print(f'{count} tensors went there and back')
