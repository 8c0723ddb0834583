// The training step of `pipe run`'s own learner in a process of its own, so that its memory is its own: a step at each line
// of standard input. Argument: JSON, as train_step.py's, with "adapter": 'lora' | 'dora' | null. Answers with a line of
// {"ms", "cpuMs", "loss", "peakBytes"}; to the line "profile" also with "js", the share of the step that was spent outside native
// code; to the line "peak" with {"gflops"}, of the dtype's products as the engine makes them.

import { readFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { createInterface } from 'node:readline';
import { applyAdapter, dora, fromConfig, lora } from '../../dist/index.js';
import { linear, noGrad, randn, scope, setNumThreads } from '../../dist/tensor/index.js';
import { Learner } from '../../dist/train/learner.js';

const job = JSON.parse(process.argv[2]);
setNumThreads(job.threads);
const config = { model_type: 'gemma3n_text', architectures: ['Gemma3nForCausalLM'], ...job.config };
const model = fromConfig(config, { seed: 0, dtype: job.dtype });
const adapter = job.adapter && { lora, dora }[job.adapter]({ rank: 8, alpha: 16 });
if (adapter) applyAdapter(model, adapter);
model.train();
const learner = new Learner(model, {
  model: {
    kind: 'gemma3n',
    path: '',
    dtype: job.dtype,
    device: 'cpu',
    freeze: [],
    weights: 'random',
    projector: 'pretrained',
    ...(adapter && { adapter }),
  },
  step: {
    kind: 'sft',
    optimizer: { kind: 'adamw', lr: 1e-4 },
    schedule: { kind: 'constant' },
    clipNorm: 1,
    maxSteps: 100_000,
    accumulate: 1,
  },
  seed: 0,
});

/** The same tokens every time, as the reference has. */
function batchOf({ batch, length, labelled }) {
  const shape = [batch, length];
  let state = 1;
  const ids = Int32Array.from({ length: batch * length }, () => {
    state = (state * 48_271) % 2_147_483_647;
    return 3 + (state % 29_997);
  });
  return {
    inputIds: { data: ids, shape },
    attentionMask: { data: new Uint8Array(batch * length).fill(1), shape },
    labels: { data: ids.map((id, i) => (i % length < length - labelled ? -100 : id)), shape },
    numTokens: batch * length,
    numLabels: batch * labelled,
    numSamples: batch,
  };
}

function step() {
  const batch = batchOf(job);
  const [begun, usage] = [performance.now(), process.cpuUsage()];
  learner.accumulate(batch, []);
  const { loss } = learner.update([]);
  const ms = performance.now() - begun;
  const { user, system } = process.cpuUsage(usage);
  const peakBytes = 1024 * Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))[1]);
  return { ms, cpuMs: (user + system) / 1000, loss, peakBytes };
}

/** A step with the time of each function: those without an address are native. */
async function profiled() {
  const session = new Session();
  session.connect();
  await session.post('Profiler.enable');
  await session.post('Profiler.setSamplingInterval', { interval: 500 });
  await session.post('Profiler.start');
  const result = step();
  const { profile } = await session.post('Profiler.stop');
  session.disconnect();
  const isJs = ({ callFrame }) => callFrame.url !== '' || callFrame.functionName === '(garbage collector)';
  const ours = new Set(profile.nodes.filter(isJs).map(({ id }) => id));
  const times = new Map();
  for (const [i, id] of profile.samples.entries()) {
    times.set(id, (times.get(id) ?? 0) + profile.timeDeltas[i]);
  }
  const total = [...times.values()].reduce((sum, time) => sum + time, 0);
  const js = [...times].reduce((sum, [id, time]) => sum + (ours.has(id) ? time : 0), 0);
  if (process.env.BENCH_FUNCTIONS) tellFunctions(profile.nodes, times, total);
  return { ...result, js: js / total };
}

/** To standard error: what took the most time. */
function tellFunctions(nodes, times, total) {
  const sums = new Map();
  for (const { id, callFrame } of nodes) {
    sums.set(callFrame.functionName, (sums.get(callFrame.functionName) ?? 0) + (times.get(id) ?? 0));
  }
  for (const [name, time] of [...sums].sort(([, a], [, b]) => b - a).slice(0, 40)) {
    console.error(
      `${((100 * time) / total).toFixed(1).padStart(6)} %  ${(time / 1000).toFixed(1).padStart(9)} ms  ${name}`,
    );
  }
}

/** The best of several products of a size that suits the processor. */
function peak() {
  const [rows, size, columns] = [1024, 2048, 2048];
  const times = noGrad(() =>
    scope(() => {
      const [x, w] = [randn([rows, size]).to(job.dtype), randn([columns, size]).to(job.dtype)];
      return Array.from({ length: 40 }, () => {
        const begun = performance.now();
        scope(() => linear(x, w));
        return performance.now() - begun;
      });
    }),
  );
  return { gflops: (2 * rows * size * columns) / Math.min(...times) / 1e6 };
}

console.log(JSON.stringify({ parameters: learner.facts().numParameters }));
for await (const line of createInterface({ input: process.stdin })) {
  const answer = line === 'profile' ? await profiled() : line === 'peak' ? peak() : step();
  console.log(JSON.stringify(answer));
}
