// The easy-VQA set (fixtures/easy-vqa): what its answers tell about its questions.

/** The three kinds of question that easy-VQA asks. */
export type QuestionKind = 'yes/no' | 'shape' | 'colour';

const KIND_OF_ANSWER: ReadonlyMap<string, QuestionKind> = new Map([
  ...['yes', 'no'].map((answer) => [answer, 'yes/no'] as const),
  ...['circle', 'rectangle', 'triangle'].map((answer) => [answer, 'shape'] as const),
  ...['black', 'blue', 'brown', 'gray', 'green', 'red', 'teal', 'yellow'].map(
    (answer) => [answer, 'colour'] as const,
  ),
]);

/** The kind of question that `answer`, one of easy-VQA's 13, belongs to.
 *  @throws {RangeError} on any other answer */
export function questionKind(answer: string): QuestionKind {
  const kind = KIND_OF_ANSWER.get(answer);
  if (kind === undefined) {
    throw new RangeError(
      `questionKind: expected one of ${[...KIND_OF_ANSWER.keys()].join(', ')}, received "${answer}"; ` +
        'tag questions of other sets by a rule of their own',
    );
  }
  return kind;
}

/** A learner without eyes: answers each question by its commonest answer in what it was shown, undefined on
 *  a question that it never saw. What it scores is what a score on pictures must beat. */
export class BlindAnswers {
  readonly #counts = new Map<string, Map<string, number>>();

  add(question: string, answer: string): void {
    const answers = this.#counts.get(question) ?? new Map<string, number>();
    answers.set(answer, (answers.get(answer) ?? 0) + 1);
    this.#counts.set(question, answers);
  }

  answer(question: string): string | undefined {
    const answers = [...(this.#counts.get(question) ?? [])];
    return answers.reduce<[string, number] | undefined>(
      (best, next) => (best === undefined || next[1] > best[1] ? next : best),
      undefined,
    )?.[0];
  }
}
