"""Writes fixtures/reference/optim.json: AdamW, clipping and schedules as PyTorch and transformers compute them.

    python test/reference/optim.py         # torch 2.15, transformers 5.23, CPU, float32
"""

import json
from pathlib import Path

import torch
from torch import nn
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_cosine_with_min_lr_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

torch.manual_seed(0)
OUT = Path(__file__).resolve().parents[2] / 'fixtures' / 'reference' / 'optim.json'
SHAPES = [[4, 3], [5], [2, 2, 2]]
STEPS = 12


def adamw(fused, **options):
    """Weights after each third step; the gradient of step s of tensor i is cos((i + 1) * (s + 1) * weight)."""
    start = [torch.randn(shape) for shape in SHAPES]
    parameters = [nn.Parameter(tensor.clone()) for tensor in start]
    optimizer = torch.optim.AdamW(parameters, fused=fused, **options)
    after = []
    for step in range(STEPS):
        optimizer.param_groups[0]['lr'] = options['lr'] * (1 + step / 10)
        for i, parameter in enumerate(parameters):
            parameter.grad = torch.cos((i + 1) * (step + 1) * parameter.detach())
        if step == 4:
            parameters[1].grad = None  # takes no part in this step
        optimizer.step()
        if step % 3 == 2:
            after.append([parameter.detach().flatten().tolist() for parameter in parameters])
    return {'options': options, 'start': [tensor.flatten().tolist() for tensor in start], 'after': after}


def clip(scale, max_norm):
    gradients = [torch.randn(shape) * scale for shape in SHAPES]
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in SHAPES]
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient.clone()
    norm = nn.utils.clip_grad_norm_(parameters, max_norm)
    return {
        'max': max_norm,
        'gradients': [gradient.flatten().tolist() for gradient in gradients],
        'norm': norm.item(),
        'clipped': [parameter.grad.flatten().tolist() for parameter in parameters],
    }


def schedule(make, warmup, max_steps, **options):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer, num_warmup_steps=warmup, **options)
    factors = []
    for _ in range(max_steps + 2):
        factors.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return factors


N = 20
values = {
    'shapes': SHAPES,
    'adamw': [
        adamw(False, lr=1e-2),
        adamw(True, lr=3e-3, betas=[0.8, 0.95], eps=1e-6, weight_decay=0.1),
    ],
    'clip': [clip(10.0, 1.0), clip(0.01, 1.0)],
    'schedules': [
        {'kind': 'constant', 'warmup': 4, 'factors': schedule(get_constant_schedule_with_warmup, 4, N)},
        {'kind': 'constant', 'warmup': 0, 'factors': schedule(get_constant_schedule_with_warmup, 0, N)},
        {'kind': 'linear', 'warmup': 5, 'factors': schedule(get_linear_schedule_with_warmup, 5, N, num_training_steps=N)},
        {'kind': 'linear', 'warmup': 0, 'factors': schedule(get_linear_schedule_with_warmup, 0, N, num_training_steps=N)},
        {'kind': 'cosine', 'warmup': 3, 'factors': schedule(get_cosine_schedule_with_warmup, 3, N, num_training_steps=N)},
        {'kind': 'cosine', 'warmup': 0, 'factors': schedule(get_cosine_schedule_with_warmup, 0, N, num_training_steps=N)},
        {'kind': 'cosine', 'warmup': 4, 'minLrRate': 0.1,
         'factors': schedule(get_cosine_with_min_lr_schedule_with_warmup, 4, N, num_training_steps=N, min_lr_rate=0.1)},
    ],
    'maxSteps': N,
}  # fmt: skip
OUT.write_text(json.dumps(values) + '\n')
