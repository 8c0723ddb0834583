// What the first steps' gradients were like, in words: how large beside later ones, which part of the model carried them,
// and what such a part's large gradients come from.

import { largestParts } from '../train/dynamics-warnings.js';
import type { StepEvent } from '../train/events.js';
import type { GradientPart } from '../train/gradient-norms.js';

export const FIRST_STEPS = 100;
/** Of these the largest gradient is the one to explain. */
const EARLY_STEPS = 10;
/** Times the later norm from which on the first are called large. */
const LARGE = 2;
/** A part of a smaller share of the square is not named. */
const NAMED_SHARE = 0.05;

export const PART_NAMES: Readonly<Record<GradientPart, string>> = {
  embeddings: 'embeddings',
  perLayerEmbeddings: 'per-layer embeddings',
  attention: 'attention',
  mlp: 'MLP',
  altup: 'AltUp',
  laurel: 'LAuReL',
  norms: 'norms',
  vision: 'vision tower',
  audio: 'audio tower',
  projectors: 'projectors',
  adapters: 'adapters',
};

/** Why this part's gradients are large while a model still has everything to learn of a task. */
const REASONS: Readonly<Record<GradientPart, string>> = {
  embeddings:
    'the table is read at the input and, where it is tied, is the output head too: at first every label pulls its own ' +
    'row and pushes all others, until answers are of the form that the task wants',
  perLayerEmbeddings:
    'each layer adds its own embedding of a token, and a batch meets few of the words: all its gradient falls on their ' +
    'rows, once a layer',
  attention:
    'keys and queries have norms of their own, so that their gradient is that of directions: it fades as they settle',
  mlp: 'most weights are here, and all labels of a batch push the same way while the answers are still wrong',
  altup:
    "its few router weights steer all four copies of every token's hidden state, so that gradients of all tokens add up in them",
  laurel: 'a narrow path beside the residual: gradients of all tokens go through its few columns',
  norms: "a norm's weight is one factor for all tokens, whose gradients add up in it",
  vision: 'every pixel of every image adds to the same few kernels',
  audio: 'every frame of every clip adds to the same weights',
  projectors:
    "a single matrix stands between a tower's features and the words: all soft tokens' gradients add up in it, the more " +
    'while it is new',
  adapters:
    'the update starts at zero: at first only B has a gradient, made by a task that the model has not adapted to at all',
};

/** Sentences for people, a paragraph each; none where records hold no norms by part. */
export function explainFirstSteps(steps: readonly StepEvent[]): string[] {
  const first = steps.filter(({ step, gradNorms }) => step <= FIRST_STEPS && gradNorms !== undefined);
  const early = first.filter(({ step }) => step <= EARLY_STEPS);
  const peak = early.reduce<StepEvent | undefined>(
    (most, step) => (most && most.gradNorm >= step.gradNorm ? most : step),
    undefined,
  );
  if (!peak) return [];
  const later = laterOf(steps);
  const carriers = largestParts(peak.gradNorms ?? {}).filter(({ share }) => share >= NAMED_SHARE);
  const [main] = carriers;
  const paragraphs = [`${comparison(peak, later)} ${carried(peak, carriers)}`];
  const ratio = later ? peak.gradNorm / later.norm : 1;
  if (main && ratio >= LARGE) {
    paragraphs.push(`Why ${PART_NAMES[main.part]}: ${REASONS[main.part]}.`);
    const fallen = later && fall(main.part, peak, later.steps);
    if (fallen) paragraphs.push(fallen);
  }
  paragraphs.push(clipping(first));
  return paragraphs;
}

interface Later {
  readonly steps: readonly StepEvent[];
  /** Median. */
  readonly norm: number;
}

/** What the first are held against: all after the hundredth, or the last half of a short run. */
function laterOf(steps: readonly StepEvent[]): Later | undefined {
  const behind = steps.filter(({ step }) => step > FIRST_STEPS);
  const rest = behind.length >= EARLY_STEPS ? behind : steps.slice(Math.ceil(steps.length / 2));
  const chosen = rest.filter(({ step }) => step > EARLY_STEPS);
  if (chosen.length < EARLY_STEPS) return undefined;
  const norm = median(chosen.map(({ gradNorm }) => gradNorm));
  return norm > 0 ? { steps: chosen, norm } : undefined;
}

function comparison({ step, gradNorm }: StepEvent, later: Later | undefined): string {
  const largest = `The largest gradient of the first ${EARLY_STEPS} steps, at step ${step}, has a norm of ${number(gradNorm)}`;
  if (!later) return `${largest}; the run is too short to hold it against later ones.`;
  const [from, to] = [later.steps[0]!.step, later.steps.at(-1)!.step];
  const beside = `the median of steps ${from} to ${to}, ${number(later.norm)}`;
  const ratio = gradNorm / later.norm;
  if (ratio >= LARGE) return `${largest}: ${number(ratio)} times ${beside}.`;
  return `${largest}, which is not large beside ${beside}.`;
}

function carried(
  { gradNorms = {} }: StepEvent,
  carriers: readonly { readonly part: GradientPart; readonly norm: number; readonly share: number }[],
): string {
  const [main, ...others] = carriers;
  if (!main) return 'No part carries it: it is zero.';
  const also = others.map(
    ({ part, norm, share }) => `${PART_NAMES[part]} ${percent(share)} (norm ${number(norm)})`,
  );
  const rest = Object.keys(gradNorms).length - carriers.length;
  const beside = also.length > 0 ? `, beside ${also.join(', ')}` : '';
  const small =
    rest > 0
      ? `; the other ${rest === 1 ? 'part has' : `${rest} parts have`} less than ${percent(NAMED_SHARE)} each`
      : '';
  return `Of its square ${PART_NAMES[main.part]} ${main.part.endsWith('s') ? 'carry' : 'carries'} ${percent(main.share)} (norm ${number(main.norm)})${beside}${small}.`;
}

function fall(part: GradientPart, peak: StepEvent, later: readonly StepEvent[]): string | undefined {
  const norms = later.flatMap(({ gradNorms }) => gradNorms?.[part] ?? []);
  const before = peak.gradNorms?.[part] ?? 0;
  if (norms.length === 0) return undefined;
  return `Later its norm is ${number(median(norms))}, from ${number(before)} at step ${peak.step}.`;
}

function clipping(first: readonly StepEvent[]): string {
  const clipped = first.filter((step) => step.clipped).length;
  const of = `the first ${first.length} ${first.length === 1 ? 'step' : 'steps'}`;
  if (clipped === 0) return `None of ${of} was clipped.`;
  const all = clipped === first.length ? 'All' : String(clipped);
  return `${all} of ${of} ${clipped === 1 ? 'was' : 'were'} clipped: a large gradient was scaled down, whole, to the norm that clipping allows.`;
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)}%`;
}

function number(value: number): string {
  return String(Number(value.toPrecision(3)));
}
