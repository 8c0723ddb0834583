# One product over weights in NF4 and int8 by bitsandbytes on a CPU, in bfloat16; its linear layers as PEFT uses them.
import json, statistics, sys, time, warnings
import torch

warnings.filterwarnings('ignore')
import bitsandbytes as bnb

job = json.loads(sys.argv[1])
torch.set_num_threads(job['threads'])


def layer(format):
    rows, size = job['rows'], job['size']
    if format == 'nf4':
        made = bnb.nn.Linear4bit(size, rows, bias=False, compute_dtype=torch.bfloat16, quant_type='nf4', compress_statistics=True)
    else:
        made = bnb.nn.Linear8bitLt(size, rows, bias=False, has_fp16_weights=False, threshold=0.0)
    made.weight.data = (torch.randn(rows, size) * 0.02).to(torch.bfloat16 if format == 'nf4' else torch.float16)
    return made.to('cpu')


def median_ms(made):
    times = []
    for round in range(-2, job['rounds']):
        x = torch.randn(job['tokens'], job['size'], dtype=torch.bfloat16, requires_grad=job['backward'])
        begun = time.perf_counter()
        with torch.set_grad_enabled(job['backward']):
            y = made(x)
            if job['backward']: y.sum().backward()
        if round >= 0: times.append(1000 * (time.perf_counter() - begun))
    return statistics.median(times)


print(json.dumps({format: median_ms(layer(format)) for format in ('nf4', 'int8')}))
