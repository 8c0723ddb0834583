// What is wrong with how a model trains though every number is finite, in words: what was seen, what it means, what to do.

import { GRADIENT_PARTS, type GradientPart, gradientPart } from './gradient-norms.js';

export interface Warning {
  readonly kind: 'clipping' | 'dead parameters' | 'zero weights' | 'soft cap' | 'no labels';
  /** What was seen, and what it means. */
  readonly message: string;
  readonly remedy: string;
  /** Parameters that it is about, all of them. */
  readonly names?: readonly string[];
}

/** A warning comes when so many steps in a row were clipped. */
export const CLIPPED_WINDOW = 100;
/** Steps with labels after which a parameter without gradient is called dead. */
export const STEPS_UNTIL_DEAD = 10;
/** What every published Gemma 3n caps its logits at. */
export const PUBLISHED_SOFTCAP = 30;

/** Kinds of names that a message shows; the rest are counted. */
const SHOWN_KINDS = 6;

/** @param clipNorm undefined where another rule clips @param steps that were clipped, in a row to the newest */
export function allClipped(
  clipNorm: number | undefined,
  { norm, byPart }: { readonly norm: number; readonly byPart: Partial<Record<GradientPart, number>> },
  steps = CLIPPED_WINDOW,
): Warning {
  const [first] = largestParts(byPart);
  const carrier = first
    ? `; ${first.part} ${first.part.endsWith('s') ? 'carry' : 'carries'} ${percent(first.share)} of its square`
    : '';
  return {
    kind: 'clipping',
    message:
      `each of the last ${steps} steps was clipped${clipNorm === undefined ? '' : ` to ${clipNorm}`}, the newest from a gradient norm of ` +
      `${number(norm)}${carrier}: every update has the same size whatever the gradient's, so that the learning rate ` +
      'alone sets it',
    remedy:
      `raise ${clipNorm === undefined ? 'the limits of step.clip' : `step.clipNorm above ${number(norm)}`} to cut off outliers alone, or keep it knowingly; where one part carries ` +
      'nearly all, a lower learning rate for it, or freezing it, lets the others learn',
  };
}

/** @param dead names, and whether they had a gradient that was 0 throughout rather than none at all */
export function deadParameters(
  dead: readonly (readonly [name: string, isZero: boolean])[],
  steps: number,
): Warning {
  const names = dead.map(([name]) => name);
  const zero = dead.filter(([, isZero]) => isZero).map(([name]) => name);
  const none = dead.filter(([, isZero]) => !isZero).map(([name]) => name);
  const kinds = [
    ...(none.length > 0 ? [`nothing in the loss depends on ${kindsOf(none)}`] : []),
    ...(zero.length > 0 ? [`a gradient of 0 throughout reaches ${kindsOf(zero)}`] : []),
  ];
  const parts = new Set(names.map(gradientPart));
  const media = [
    ...(parts.has('vision') ? ['images'] : []),
    ...(parts.has('audio') ? ['sound'] : []),
    ...(parts.has('projectors') && !parts.has('vision') && !parts.has('audio') ? ['images or sound'] : []),
  ];
  return {
    kind: 'dead parameters',
    message:
      `${count(names.length, 'parameter')} that should learn ${names.length === 1 ? 'has' : 'have'} had no gradient in ` +
      `${count(steps, 'step')}: ${kinds.join('; ')}`,
    remedy:
      (media.length > 0 ? `give samples with ${media.join(' and ')}, or f` : 'f') +
      'reeze them, which saves their gradients and optimizer state',
    names,
  };
}

export function zeroWeights(names: readonly string[]): Warning {
  return {
    kind: 'zero weights',
    message:
      `${count(names.length, 'tensor')} of the checkpoint that ${names.length === 1 ? 'computes is' : 'compute are'} zero ` +
      `throughout: ${kindsOf(names)}. What passes through a zero matrix is lost, and so is the gradient behind it`,
    remedy: 'hold the checkpoint against the published one with pipe inspect; a file may be missing or cut',
    names,
  };
}

/** @param softcap of config.json; undefined is none */
export function otherSoftcap(softcap: number | undefined): Warning {
  return {
    kind: 'soft cap',
    message:
      `the loss is computed from logits ${softcap === undefined ? 'without a soft cap' : `soft-capped at ${softcap}`}, as ` +
      `config.json has it (final_logit_softcapping), where every published Gemma 3n has ${PUBLISHED_SOFTCAP}: losses and ` +
      'gradients are not those that its weights were trained with',
    remedy: `set final_logit_softcapping to ${PUBLISHED_SOFTCAP}, unless this model was trained otherwise`,
  };
}

/** @param skipped micro-batches of a step in which every label is masked */
export function withoutLabels(step: number, skipped: number): Warning {
  return {
    kind: 'no labels',
    message:
      `of step ${step}'s micro-batches ${skipped} had no token to learn from, every label being masked: skipped, as are all ` +
      "further ones; each step's record counts them",
    remedy:
      'see that the conversations end in an assistant turn, and that the length limit does not cut the answers off',
  };
}

/** Parts by their share of the square of the norm, largest first. */
export function largestParts(
  norms: Readonly<Partial<Record<string, number>>>,
): { readonly part: GradientPart; readonly norm: number; readonly share: number }[] {
  const all = Object.values(norms).reduce((sum: number, norm = 0) => sum + norm ** 2, 0);
  return GRADIENT_PARTS.flatMap((part) => {
    const norm = norms[part];
    return norm === undefined || all === 0 ? [] : [{ part, norm, share: norm ** 2 / all }];
  }).sort((a, b) => b.share - a.share);
}

/** 'model.layers.*.altup.weight (12), ...': names that differ in numbers alone are one kind. */
export function kindsOf(names: readonly string[]): string {
  const kinds = new Map<string, { first: string; number: number }>();
  for (const name of names) {
    const kind = name.replace(/\.\d+(?=\.|$)/g, '.*');
    const found = kinds.get(kind);
    if (found) found.number += 1;
    else kinds.set(kind, { first: name, number: 1 });
  }
  const shown = [...kinds].slice(0, SHOWN_KINDS);
  const rest = [...kinds].slice(SHOWN_KINDS).reduce((sum, [, { number }]) => sum + number, 0);
  const words = shown.map(([kind, { first, number }]) => (number === 1 ? first : `${kind} (${number})`));
  return [...words, ...(rest > 0 ? [`${rest} more`] : [])].join(', ');
}

function count(number: number, word: string): string {
  return `${number} ${number === 1 ? word : `${word}s`}`;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)}%`;
}

function number(value: number): string {
  return String(Number(value.toPrecision(3)));
}
