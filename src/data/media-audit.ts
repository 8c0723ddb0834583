// The audit of media: a picture or clip that a sample declares must reach the step in as many soft tokens as stand for it.
// `encode` sees to that by itself; this holds for stages of users' own too, whatever is between the messages and the batch.

import { Observable } from 'rxjs';
import { DataError } from '../errors.js';
import type { AnyStage, Origin, Stage, Ticket, Ticketed } from '../flow/types.js';
import { AUDIO, IMAGE, type MediumKind } from './media.js';
import type { Processor } from './processor.js';
import type { StageContext } from './stages.js';

/** How many pictures and clips there are. */
type Counts = Readonly<Record<'image' | 'audio', number>>;

interface Audited {
  readonly kind: MediumKind;
  readonly tokenId: number;
  readonly softTokens: number;
}

/** The stages, between which values are looked at. A sample with messages is counted; an example (or its row alone) that
 *  has lost one of its media is quarantined; a batch that has ends the run, since it cannot be told which of its rows did.
 *  Of what declares no media, the soft tokens and the arrays must agree. */
export function auditMedia(
  stages: readonly AnyStage[],
  { processor, purpose }: Pick<StageContext, 'processor' | 'purpose'>,
): AnyStage[] {
  const media = auditedMedia(processor);
  const declared = new WeakMap<Ticket, Counts>();
  const look = (value: unknown, ticket: Ticket): DataError | undefined => {
    if (typeof value !== 'object' || value === null) return undefined;
    if ('messages' in value && Array.isArray(value.messages)) {
      const counts = countParts(asked(value.messages, purpose));
      if (counts) declared.set(ticket, counts);
      else declared.delete(ticket);
      return undefined;
    }
    const ids = idsOf(value);
    if (!ids) return undefined;
    return auditArrays(value, ids, declaredOf(ticket, declared), media, ticket.origins);
  };
  return stages.map((stage, i) => watched(stage, look, i === stages.length - 1));
}

function auditedMedia({ tokenizer, media }: Processor): Audited[] {
  return [IMAGE, AUDIO].flatMap((kind) => {
    const medium = media[kind.part];
    const token = medium && tokenizer.named(kind.part);
    return medium && token ? [{ kind, tokenId: token.id, softTokens: medium.softTokens }] : [];
  });
}

/** The stage itself, its inputs looked at, and its outputs where it is the last. */
function watched(stage: AnyStage, look: Look, isLast: boolean): AnyStage {
  const connect: Stage<never, unknown>['connect'] = (source, reserve) => {
    const flow = stage.connect(looking(source, stage.name, look), reserve);
    return isLast ? looking(flow, stage.name, look) : flow;
  };
  // Its traits may be accessors: they stay its own.
  return Object.create(stage, { connect: { value: connect, enumerable: true } }) as AnyStage;
}

type Look = (value: unknown, ticket: Ticket) => DataError | undefined;

function looking<T>(source: Observable<Ticketed<T>>, stage: string, look: Look): Observable<Ticketed<T>> {
  return new Observable((subscriber) =>
    source.subscribe({
      next: (item) => {
        const fault = look(item.value, item.ticket);
        if (!fault) subscriber.next(item);
        else if (item.ticket.origins.length === 1) item.ticket.quarantine(stage, fault);
        else subscriber.error(fault);
      },
      error: (error: unknown) => subscriber.error(error),
      complete: () => subscriber.complete(),
    }),
  );
}

/** Of a group: of all its members together. */
function declaredOf(ticket: Ticket, declared: WeakMap<Ticket, Counts>): Counts | undefined {
  const own = declared.get(ticket);
  if (own || !('members' in ticket)) return own;
  let [image, audio] = [0, 0];
  for (const member of ticket.members as readonly Ticket[]) {
    const counts = declaredOf(member, declared);
    image += counts?.image ?? 0;
    audio += counts?.audio ?? 0;
  }
  return { image, audio };
}

/** What the model is shown: of a sample to evaluate, all but the answer. */
function asked(messages: readonly unknown[], purpose: StageContext['purpose']): readonly unknown[] {
  const last = messages.at(-1) as { role?: unknown } | undefined;
  return purpose === 'evaluate' && last?.role === 'assistant' ? messages.slice(0, -1) : messages;
}

/** undefined where there are none. */
function countParts(messages: readonly unknown[]): Counts | undefined {
  const counts = { image: 0, audio: 0 };
  for (const message of messages) {
    const { content } = (message ?? {}) as { content?: unknown };
    if (!Array.isArray(content)) continue;
    for (const part of content as readonly unknown[]) {
      const { type } = (part ?? {}) as { type?: unknown };
      if (type === 'image' || type === 'audio') counts[type] += 1;
    }
  }
  return counts.image + counts.audio > 0 ? counts : undefined;
}

/** The token ids of an example or a batch. */
function idsOf(value: object): Int32Array | undefined {
  if (!('inputIds' in value)) return undefined;
  const { inputIds } = value;
  if (inputIds instanceof Int32Array) return inputIds;
  const { data } = (inputIds ?? {}) as { data?: unknown };
  return data instanceof Int32Array ? data : undefined;
}

function auditArrays(
  value: object,
  ids: Int32Array,
  declared: Counts | undefined,
  media: readonly Audited[],
  origins: readonly Origin[],
): DataError | undefined {
  const { pixelValues, inputFeatures } = value as Partial<Record<string, { shape?: readonly number[] }>>;
  const arrays: Counts = { image: pixelValues?.shape?.[0] ?? 0, audio: inputFeatures?.shape?.[0] ?? 0 };
  for (const kind of [IMAGE, AUDIO]) {
    const known = media.find((each) => each.kind === kind);
    const count = Math.max(arrays[kind.part], declared?.[kind.part] ?? 0);
    let found = 0;
    if (known) for (const id of ids) if (id === known.tokenId) found += 1;
    const wanted = count * (known?.softTokens ?? 0);
    // Without settings for the medium there are no soft tokens of it at all.
    if (arrays[kind.part] === count && found === wanted && (known || count === 0)) continue;
    return lostFault(kind, { declared: count, arrays: arrays[kind.part], found, wanted }, origins);
  }
  return undefined;
}

/** Rows that a message names; the rest are counted. */
const SHOWN_ROWS = 8;

function lostFault(
  { part, one, many }: MediumKind,
  { declared, arrays, found, wanted }: Record<'declared' | 'arrays' | 'found' | 'wanted', number>,
  origins: readonly Origin[],
): DataError {
  const shown = origins.slice(0, SHOWN_ROWS).map(({ file, row }) => `${file} row ${row}`);
  const more = origins.length > SHOWN_ROWS ? ` and ${origins.length - SHOWN_ROWS} more` : '';
  const words = declared === 1 ? one : many;
  return new DataError({
    where: `${shown.join(', ')}${more}`,
    expected: `${declared} ${words} with ${wanted} soft tokens (${part}) before the step`,
    received: `${arrays} with ${found}`,
    remedy: `a stage has lost ${words}, or placeholders of them: encode with encode(), or as it does`,
  });
}
