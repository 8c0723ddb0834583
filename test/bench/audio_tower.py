"""Milliseconds of processor time that transformers' audio tower takes, forward, and forward and backward. Reads jobs from
stdin, {"config", "clips", "frames", "backward", "rounds"} a line, and answers each with a line.
"""
import json
import sys
import time

import torch
from transformers import Gemma3nAudioConfig
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nAudioEncoder

torch.set_num_threads(1)
towers = {}


def measure(config, clips, frames, backward, rounds):
    key = json.dumps([config, clips, backward])
    if key not in towers:
        towers.clear()
        torch.manual_seed(0)
        towers[key] = Gemma3nAudioEncoder(Gemma3nAudioConfig(**config)).eval()
        measure(config, clips, frames, backward, 1)  # the first step takes longer
    tower = towers[key]
    mel = torch.randn(clips, frames, config.get("input_feat_size", 128))
    padding = torch.zeros(clips, frames, dtype=torch.bool)

    def step():
        for parameter in tower.parameters():
            parameter.grad = None
        with torch.set_grad_enabled(backward):
            features = tower(mel, padding).last_hidden_state
            if backward:
                features.square().sum().backward()

    begun = time.process_time()
    for _ in range(rounds):
        step()
    return (time.process_time() - begun) / rounds * 1e3


for line in sys.stdin:
    print(json.dumps(measure(**json.loads(line))), flush=True)
