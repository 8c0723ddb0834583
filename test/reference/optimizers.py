"""Writes fixtures/reference/optimizers.json: twelve steps of each optimizer in float32 and four in float64, on a CPU.

    python test/reference/optimizers.py         # torch 2.15

Adafactor, Muon and SGD are PyTorch's. Lion and 8-bit AdamW, which PyTorch has not, are written down here from their
papers (arXiv 2302.06675, 2110.02861); the dynamic map is built as the latter's appendix describes it.
"""

import json
from pathlib import Path

import torch
from torch import nn

torch.manual_seed(0)
OUT = Path(__file__).resolve().parents[2] / 'fixtures' / 'reference' / 'optimizers.json'
SHAPES = [[6, 4], [5], [2, 3, 4], [3, 7]]
STEPS = 12


def gradient(i, step, parameter):
    return torch.cos((i + 1) * (step + 1) * parameter.detach())


def steps(make, start, count):
    parameters = [nn.Parameter(tensor.clone()) for tensor in start]
    optimizer = make(parameters)
    after = []
    for step in range(count):
        for i, parameter in enumerate(parameters):
            parameter.grad = gradient(i, step, parameter)
        optimizer.step()
        if step % 4 == 3:
            after.append([parameter.detach().flatten().tolist() for parameter in parameters])
    return after


def run(make, shapes, options):
    start = [torch.randn(shape) for shape in shapes]
    after = steps(make, start, STEPS)
    wide = steps(make, [tensor.double() for tensor in start], 4)[0]
    return {'options': options, 'shapes': shapes, 'wide': wide, 'start': [t.flatten().tolist() for t in start], 'after': after}


class Lion:
    def __init__(self, parameters, lr, betas, weight_decay):
        self.parameters, self.lr, self.betas, self.decay = parameters, lr, betas, weight_decay
        self.momenta = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self):
        one, two = self.betas
        for p, m in zip(self.parameters, self.momenta):
            change = torch.sign(one * m + (1 - one) * p.grad)
            p -= self.lr * (change + self.decay * p)
            m.copy_(two * m + (1 - two) * p.grad)


def dynamic_map(signed):
    values = [0.0, 1.0]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2 ** (exponent if signed else exponent + 1) + 1, dtype=torch.float64)
        middles = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (exponent - 6)
        values += middles.tolist()
        if signed:
            values += (-middles).tolist()
    return torch.tensor(sorted(values), dtype=torch.float32)


SIGNED, UNSIGNED = dynamic_map(True), dynamic_map(False)


class Blocks:
    """A tensor in 8 bits, 256 numbers a block."""

    def __init__(self, like, values, signed):
        self.values, self.signed, self.shape = values, signed, like.shape
        self.write(torch.zeros_like(like))

    def read(self):
        flat = self.values[self.codes] * self.largest.repeat_interleave(256)[: self.codes.numel()]
        return flat.view(self.shape)

    def write(self, tensor):
        flat = tensor.flatten()
        self.largest = torch.stack([block.abs().max() for block in flat.split(256)])
        scale = torch.where(self.largest > 0, 1 / self.largest, 0).repeat_interleave(256)[: flat.numel()]
        shares = flat * scale
        self.codes = (shares[:, None] - self.values).abs().argmin(1)
        if self.signed:  # no sign is lost to the map's zero
            wrong = self.values[self.codes].signbit() != shares.signbit()
            self.codes = torch.where(wrong, self.codes + torch.where(shares > 0, 1, -1), self.codes)


class AdamW8Bit:
    def __init__(self, parameters, lr, betas, eps, weight_decay):
        self.parameters, self.lr, self.betas, self.eps, self.decay = parameters, lr, betas, eps, weight_decay
        self.means = [Blocks(p.detach(), SIGNED, True) for p in parameters]
        self.squares = [Blocks(p.detach(), UNSIGNED, False) for p in parameters]
        self.count = 0

    @torch.no_grad()
    def step(self):
        self.count += 1
        one, two = self.betas
        for p, mean, square in zip(self.parameters, self.means, self.squares):
            m = one * mean.read() + (1 - one) * p.grad
            v = two * square.read() + (1 - two) * p.grad**2
            p *= 1 - self.lr * self.decay
            p -= self.lr / (1 - one**self.count) * m / ((v / (1 - two**self.count)).sqrt() + self.eps)
            mean.write(m)
            square.write(v)


def adafactor(lr, weight_decay):
    make = lambda ps: torch.optim.Adafactor(  # noqa: E731
        ps, lr=lr, eps=(2**-23, 1e-3), weight_decay=weight_decay, foreach=False)  # fmt: skip
    return run(make, SHAPES, {'lr': lr, 'weightDecay': weight_decay})


def sgd(lr, momentum=0.0, nesterov=False, weight_decay=0.0, dampening=0.0):
    make = lambda ps: torch.optim.SGD(  # noqa: E731
        ps, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, dampening=dampening)  # fmt: skip
    options = {'lr': lr, 'momentum': momentum, 'nesterov': nesterov, 'weightDecay': weight_decay, 'dampening': dampening}
    return run(make, SHAPES, options)


def muon(lr, adjust, **options):
    make = lambda ps: torch.optim.Muon(ps, lr=lr, adjust_lr_fn=adjust, **options)  # noqa: E731
    named = {'original': 'original', 'match_rms_adamw': 'matchRmsAdamW'}[adjust]
    ours = {'lr': lr, 'adjustLr': named, 'nesterov': options.get('nesterov', True)}
    return run(make, [[6, 4], [3, 7]], ours)


def lion(lr, betas, weight_decay):
    return run(lambda ps: Lion(ps, lr, betas, weight_decay), SHAPES, {'lr': lr, 'betas': betas, 'weightDecay': weight_decay})


def adamw8bit(lr, weight_decay):
    return run(
        lambda ps: AdamW8Bit(ps, lr, (0.9, 0.999), 1e-8, weight_decay),
        [[20, 31], [40]],
        {'lr': lr, 'weightDecay': weight_decay, 'minSize': 0},
    )


values = {
    'adafactor': [adafactor(1e-2, 0.0), adafactor(0.3, 0.1)],
    'sgd': [sgd(0.1), sgd(0.05, 0.9, True, 0.01), sgd(0.05, 0.8, False, 0.1, 0.3)],
    'muon': [muon(0.02, 'original'), muon(0.01, 'match_rms_adamw', nesterov=False)],
    'lion': [lion(1e-2, [0.9, 0.99], 0.1)],
    'adamw8bit': [adamw8bit(1e-2, 0.1)],
    'maps': {'signed': SIGNED.tolist(), 'unsigned': UNSIGNED.tolist()},
}
OUT.write_text(json.dumps(values) + '\n')
