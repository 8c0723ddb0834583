"""One load by transformers in a process of its own, every weight summed. Prints a line of JSON.

    python load.py FOLDER DTYPE
"""
import json
import re
import resource
import sys
import time
from pathlib import Path

import torch
import transformers
from transformers import Gemma3nForCausalLM

folder, dtype = sys.argv[1:3]
transformers.utils.logging.disable_progress_bar()


def memory(key):
    return int(re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)[1]) * 1024


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


torch.ones(1)
resident, anonymous = memory("VmRSS"), memory("RssAnon")
used, begun = cpu_seconds(), time.perf_counter()
model = Gemma3nForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
# it leaves weights of the file's dtype where they are: they are read when they are used
with torch.no_grad():
    for weight in model.parameters():
        weight.sum().item()
seconds, cpu = time.perf_counter() - begun, cpu_seconds() - used
print(json.dumps({
    "seconds": seconds,
    "cpuSeconds": cpu,
    "peakBytes": memory("VmHWM") - resident,
    "anonymousBytes": memory("RssAnon") - anonymous,
}))
