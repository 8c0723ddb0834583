// Which tokens of a conversation are learnt: those of the assistant's turns, with the token that ends each turn, and no
// others. A turn's place is found by rendering: what the template writes for the messages before it, with the generation
// prompt, is exactly what the model is given when it answers; what the turn adds is what it should write.

import { TextError } from '../errors.js';
import type { ChatTemplate, EncodedStretch, RenderOptions, TemplateMessage } from '../text/index.js';
import { IGNORED } from './collate.js';

/** A stretch [start, end) of a rendered conversation. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** The stretches of `rendered` that the assistant's turns wrote, up to the next turn's beginning.
 *  @throws {TextError} when the template does not write a conversation turn after turn */
export function assistantSpans(
  template: ChatTemplate,
  messages: readonly TemplateMessage[],
  rendered: string,
  { addGenerationPrompt = false, variables }: RenderOptions = {},
): Span[] {
  const spans: Span[] = [];
  for (const [index, { role }] of messages.entries()) {
    if (role !== 'assistant') continue;
    if (index === 0) throw misplaced(template, index, 'nothing that it answers');
    const options = variables ? { variables } : {};
    const prompt = template.render(messages.slice(0, index), { ...options, addGenerationPrompt: true });
    const isWhole = index === messages.length - 1 && !addGenerationPrompt;
    const answered = isWhole ? rendered : template.render(messages.slice(0, index + 1), options);
    if (!answered.startsWith(prompt) || !rendered.startsWith(answered)) {
      throw misplaced(template, index, 'other text where its prompt should be');
    }
    spans.push({ start: prompt.length, end: answered.length });
  }
  return spans;
}

/** Labels, unshifted: a token's own id within `spans`, as far as the last special token there (the turn's end; what follows
 *  it, such as a newline, is the template's), and -100 elsewhere and within `holes`. */
export function labelsOf(
  stretches: readonly EncodedStretch[],
  spans: readonly Span[],
  holes: readonly Span[],
): number[] {
  const within = ({ start, end }: Span, span: Span): boolean => start >= span.start && end <= span.end;
  const ends = spans.map((span) => {
    const isEnd = (stretch: EncodedStretch): boolean =>
      stretch.special && within(stretch, span) && !holes.some((hole) => within(stretch, hole));
    return { start: span.start, end: stretches.findLast(isEnd)?.end ?? span.end };
  });
  return stretches.flatMap((stretch) => {
    const learnt = ends.some((span) => within(stretch, span)) && !holes.some((hole) => within(stretch, hole));
    return stretch.ids.map((id) => (learnt ? id : IGNORED));
  });
}

function misplaced(template: ChatTemplate, index: number, received: string): TextError {
  return new TextError({
    where: `${template.where}: message ${index} (assistant)`,
    expected: 'an answer that continues what the template writes before it',
    received,
    remedy: 'begin conversations with a user turn, and use the template of a chat model',
  });
}
