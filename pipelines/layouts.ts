// Rows of published data sets to conversations, by their usual layouts.

import { type Message, type Sample, assistant, audio, chat, image, system, text, user } from 'sluice';

/** Pictures with questions and answers about them, as HuggingFaceM4/the_cauldron has them. */
export interface CauldronRow {
  readonly images: readonly { readonly bytes: Uint8Array }[];
  readonly texts: readonly { readonly user: string; readonly assistant: string }[];
}

/** The columns of such rows, checked before a run. */
export const CAULDRON_COLUMNS = {
  images: 'list<struct<bytes: binary>>',
  texts: 'list<struct<user: string, assistant: string>>',
};

/** All turns of a row as one conversation, so that its pictures are looked at once. */
export function cauldronConversation({ images, texts }: CauldronRow): Sample {
  const pictures = images.map(({ bytes }) => image(bytes));
  return chat(
    ...texts.flatMap((turn, i): Message[] => [
      user(...(i === 0 ? pictures : []), text(turn.user)),
      assistant(text(turn.assistant)),
    ]),
  );
}

/** A conversation for each question of a row, to be answered in an evaluation. */
export function cauldronQuestions({ images, texts }: CauldronRow): Sample[] {
  return texts.map((turn) => cauldronConversation({ images, texts: [turn] }));
}

/** A clip and what is said in it, as openslr/librispeech_asr has them. */
export interface SpeechRow {
  readonly audio: { readonly bytes: Uint8Array };
  readonly text: string;
}

export const SPEECH_COLUMNS = { audio: 'struct<bytes: binary>', text: 'string' };

export function transcript(row: SpeechRow): Sample {
  const words = row.text.toLowerCase(); // LibriSpeech writes capitals alone
  return chat(user(audio(row.audio.bytes), text('Write down what is said.')), assistant(text(words)));
}

/** A conversation in turns, as trl-lib/Capybara has them. */
export interface MessagesRow {
  readonly messages: readonly { readonly role: string; readonly content: string }[];
}

export const MESSAGES_COLUMNS = { messages: 'list<struct<role: string, content: string>>' };

export function conversation({ messages }: MessagesRow): Sample {
  const builders = { system, user, assistant };
  return chat(
    ...messages.map(({ role, content }) => {
      if (!(role in builders)) throw new Error(`a turn of system, user or assistant, not of ${role}`);
      return builders[role as keyof typeof builders](text(content));
    }),
  );
}
