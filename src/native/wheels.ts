// Which wheels the engine is made of, and what is kept of them.
//
// libtorch_cpu needs only CUDA's small runtime and profiling libraries, so a machine without a GPU takes those two
// beside torch (0.6 GB to fetch, 0.5 GB kept) instead of all of CUDA (4 GB kept).

import { pinnedTorch } from './engine.js';

export interface Plan {
  readonly packages: readonly string[];
  /** What of the wheels is kept, as a Python regular expression. */
  readonly keep: string;
  readonly diskBytes: number;
}

const torch = `torch==${pinnedTorch}`;
const runtime = ['nvidia-cuda-runtime==13.2.86', 'nvidia-cuda-cupti==13.2.86'];
const licences = String.raw`torch-.*\.dist-info/.*(LICEN|NOTICE)`;

export const cpuPlan: Plan = {
  packages: process.platform === 'darwin' ? [torch] : [...runtime, torch],
  keep:
    String.raw`torch/(include/|share/cmake/|version\.py$)|torch/lib/(?!.*(cuda|nvrtc|nvshmem|python|shm|global_deps))` +
    String.raw`|torch\.libs/|nvidia/.*/lib(cudart|cupti)\.so|${licences}`,
  diskBytes: 2e9,
};

/** What pip resolves for the pinned torch, without the Python-only packages. */
export const gpuPlan: Plan = {
  packages: [
    ...runtime,
    'nvidia-nvtx==13.2.86',
    'nvidia-nvjitlink==13.5.37',
    'nvidia-cufile==1.17.1.22',
    'nvidia-cuda-nvrtc==13.2.86',
    'nvidia-nvshmem-cu13==3.7.2',
    'nvidia-cusparselt-cu13==0.8.1',
    'nvidia-cusparse==12.7.10.12',
    'nvidia-cusolver==12.2.0.11',
    'nvidia-cufft==12.2.0.57',
    'nvidia-nccl-cu13==2.30.7',
    'nvidia-cudnn-cu13==9.26.0.51',
    'nvidia-cublas==13.4.1.3',
    torch,
  ],
  keep: String.raw`torch/(include|lib|share/cmake)/|torch/version\.py$|torch\.libs/|nvidia/|${licences}`,
  diskBytes: 10e9,
};

/** Python: unpacks what matches `keep` of a folder's wheels, printing bytes done and in all. */
export const unpackScript = `
import os, re, sys, zipfile
folder, out, keep = sys.argv[1:]
wheels = [zipfile.ZipFile(os.path.join(folder, f)) for f in sorted(os.listdir(folder)) if f.endswith('.whl')]
todo = [(w, i) for w in wheels for i in w.infolist() if re.match(keep, i.filename) and not i.is_dir()]
total, done = sum(i.file_size for _, i in todo), 0
for wheel, info in todo:
    wheel.extract(info, out)
    done += info.file_size
    print(done, total, flush=True)
`;
