// What the spoken-digits pipelines share: rows of fixtures/spoken-digits to conversations, and voices at other speeds.

import { type DecodedAudio, type Sample, assistant, audio, chat, text, user } from 'sluice';

/** A row of train.parquet and test.parquet, as audio sets on the Hub have them. */
export interface SpokenDigitsRow {
  readonly audio: { readonly bytes: Uint8Array; readonly path: string };
  /** "three one seven" */
  readonly text: string;
  readonly voice: string;
  readonly noise: string;
}

/** The columns that a row needs, with their types, checked before a run. */
export const SPOKEN_DIGITS_COLUMNS = {
  audio: 'struct<bytes: binary, path: string>',
  text: 'string',
  voice: 'string',
  noise: 'string',
};

/** The clip, and what is said in it. */
export function transcript({ audio: clip, text: words, voice, noise }: SpokenDigitsRow): Sample {
  return { ...chat(user(audio(clip.bytes)), assistant(text(words))), tags: { voice, noise } };
}

// Slower, and the longest clip (2.2 s) would not fit the base's 16 soft tokens.
const SPEEDS = ['1', '0.87', '1.15'];

/** A clip three times over, to be played by `atItsSpeed` as it is, slower and faster (Ko et al., Interspeech 2015): the
 *  voice becomes lower and higher, and a few voices become many. */
export function transcriptsAtSpeeds(row: SpokenDigitsRow): Sample[] {
  const sample = transcript(row);
  return SPEEDS.map((speed) => ({ ...sample, tags: { ...sample.tags, speed } }));
}

/** Plays the decoded clips of a sample at the speed of its tag. */
export function atItsSpeed(sample: Sample): Sample {
  const speed = Number(sample.tags?.['speed'] ?? 1);
  const messages = sample.messages.map((message) => ({
    ...message,
    content: message.content.map((part) =>
      part.type === 'audio' && !(part.audio instanceof Uint8Array)
        ? { ...part, audio: played(part.audio, speed) }
        : part,
    ),
  }));
  return { ...sample, messages };
}

/** By linear interpolation between samples: the error is far below the noise of these clips. */
function played({ data, ...rest }: DecodedAudio, speed: number): DecodedAudio {
  if (speed === 1) return { data, ...rest };
  const length = Math.floor((data.length - 1) / speed) + 1;
  const changed = Float32Array.from({ length }, (_, i) => {
    const at = Math.floor(i * speed);
    const [left = 0, right = left] = data.subarray(at, at + 2);
    return left + (right - left) * (i * speed - at);
  });
  return { ...rest, data: changed };
}
