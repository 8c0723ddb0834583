# Weights in NF4, with and without double quantisation, and in int8 as bitsandbytes (0.50.2, CPU) makes them, and their
# numbers; and the loss and the gradients of a small Gemma 3n in float32 with PEFT's LoRA, DoRA and rank-stabilised LoRA over
# weights that bitsandbytes quantised and dequantised.
#   python test/reference/nf4.py
import json, torch, transformers, bitsandbytes.functional as F
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

torch.manual_seed(3)
out = {}
# name: shape, block size, double quantisation, dtype
cases = {
    'even': ((48, 128), 64, True, torch.float32),
    'odd': ((37, 67), 64, True, torch.float32),
    'wide': ((110, 192), 64, True, torch.float32),
    'bf16': ((40, 96), 64, True, torch.bfloat16),
    'blocks': ((33, 70), 128, True, torch.float32),
    'small_blocks': ((20, 48), 32, False, torch.float32),
    'single': ((21, 65), 256, False, torch.float32),
    'zero': ((3, 70), 64, True, torch.float32),
}
for name, (shape, block, double, dtype) in cases.items():
    weight = (torch.randn(shape) * 0.3 * torch.rand(shape[0], 1)).to(dtype)
    if name == 'zero': weight[:] = 0
    out[f'{name}.weight'] = weight
    packed, state = F.quantize_4bit(weight, blocksize=block, compress_statistics=double, quant_type='nf4')
    out[f'{name}.packed'] = packed.flatten()
    out[f'{name}.absmax'] = state.absmax
    if double:
        out[f'{name}.nested'] = state.state2.absmax
        out[f'{name}.offset'] = state.offset.reshape(())
    state.dtype = torch.float32
    out[f'{name}.numbers'] = F.dequantize_4bit(packed, state)
    state.dtype = torch.bfloat16
    out[f'{name}.numbers_bf16'] = F.dequantize_4bit(packed, state)
    if name != 'zero':
        codes, scales, _ = F.int8_vectorwise_quant(weight)
        out[f'{name}.int8'], out[f'{name}.int8_absmax'] = codes, scales
        out[f'{name}.int8_numbers'] = F.int8_vectorwise_dequant(codes, scales)
save_file({k: v.contiguous() for k, v in out.items()}, 'fixtures/reference/nf4.safetensors')

PROJECTIONS = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']
base = 'fixtures/reference/text-sharing'


def dequantised(weight, format):
    if format == 'int8':
        codes, scales, _ = F.int8_vectorwise_quant(weight)
        return F.int8_vectorwise_dequant(codes, scales)
    packed, state = F.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type='nf4')
    return F.dequantize_4bit(packed, state)


values = {}
for name, format, options in [
    ('lora', 'nf4', {}),
    ('dora', 'nf4', {'use_dora': True}),
    ('int8', 'int8', {'use_rslora': True}),
]:
    torch.manual_seed(7)
    model = transformers.Gemma3nForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation='eager').eval()
    shared = model.config.num_hidden_layers - model.config.num_kv_shared_layers
    with torch.no_grad():
        for path, module in model.named_modules():
            if path.split('.')[-1] in PROJECTIONS and 'layers.' in path:
                module.weight.copy_(dequantised(module.weight, format))
    # Layers that share keys and values have none of their own that compute.
    targets = [
        path
        for path, _ in model.named_modules()
        if path.split('.')[-1] in PROJECTIONS
        and 'layers.' in path
        and not (path.split('.')[-1] in ('k_proj', 'v_proj') and int(path.split('layers.')[1].split('.')[0]) >= shared)
    ]
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type='CAUSAL_LM', **options))
    for path, parameter in model.named_parameters():
        if 'lora_B' in path: torch.nn.init.normal_(parameter, 0, 0.05)
        if 'magnitude' in path: parameter.data.mul_(1 + 0.1 * torch.randn_like(parameter))
    ids = torch.randint(3, model.config.vocab_size, (2, 12))
    labels = ids.clone()
    labels[:, :4] = -100
    result = model(input_ids=ids, labels=labels)
    result.loss.backward()
    values[f'{name}.input_ids'], values[f'{name}.labels'] = ids, labels
    values[f'{name}.logits'], values[f'{name}.loss'] = result.logits.detach(), result.loss.detach()
    folder = f'fixtures/reference/qlora-{name}'
    model.save_pretrained(folder)
    for path, parameter in model.named_parameters():
        if parameter.grad is not None:
            values[f'{name}.grad.{path}'] = parameter.grad
    # The values are of the small model, whose folder an adapter's file would name.
    config = json.load(open(f'{folder}/adapter_config.json'))
    config['base_model_name_or_path'] = base
    json.dump(config, open(f'{folder}/adapter_config.json', 'w'), indent=2, sort_keys=True)
save_file({k: v.contiguous() for k, v in values.items()}, 'fixtures/reference/qlora.safetensors')
