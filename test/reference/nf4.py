# Weights in NF4 with double quantisation and in int8 as bitsandbytes (0.50.2, CPU) makes them, and their numbers.
# Magnitudes are multiples of 1/1024, so that their mean does not depend on the order of summing.
#   python test/reference/nf4.py
import torch, bitsandbytes.functional as F
from safetensors.torch import save_file

torch.manual_seed(3)
out = {}
for name, shape in {'even': (48, 128), 'odd': (37, 67), 'wide': (300, 192), 'zero': (3, 70)}.items():
    weight = (torch.randn(shape) * 0.3 * torch.rand(shape[0], 1) * 1024).round() / 1024
    if name == 'zero': weight[:] = 0
    out[f'{name}.weight'] = weight
    packed, state = F.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type='nf4')
    out[f'{name}.packed'] = packed.flatten()
    out[f'{name}.absmax'] = state.absmax
    out[f'{name}.nested'] = state.state2.absmax
    out[f'{name}.offset'] = state.offset.reshape(())
    out[f'{name}.numbers'] = F.dequantize_4bit(packed, state)
    state.dtype = torch.bfloat16
    out[f'{name}.numbers_bf16'] = F.dequantize_4bit(packed, state)
    if name != 'zero':
        codes, scales, _ = F.int8_vectorwise_quant(weight)
        out[f'{name}.int8'], out[f'{name}.int8_absmax'] = codes, scales
save_file({k: v.contiguous() for k, v in out.items()}, 'fixtures/reference/nf4.safetensors')
