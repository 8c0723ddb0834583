// Gemma 3n E2B learns to write down speech as LibriSpeech does, by LoRA on its text tower and its projectors.

import {
  batch,
  checkpoints,
  decodeMedia,
  encode,
  evaluation,
  gemma3n,
  lora,
  map,
  metrics,
  parquet,
  pipeline,
  promptAloneWords,
  report,
  take,
  wordErrorRate,
} from 'sluice';
import { SPEECH_COLUMNS, type SpeechRow, transcript } from '../layouts.js';
import { adapterStep, published } from '../published.js';

const speech = 'hf://datasets/openslr/librispeech_asr/clean';

export default pipeline({
  name: 'e2b-audio-lora',
  seed: 1,
  model: gemma3n('google/gemma-3n-E2B-it', {
    ...published,
    adapter: lora({ rank: 16, alpha: 32, targets: ['text', 'projector'] }),
  }),
  source: parquet<SpeechRow>(`${speech}/train.100/0000.parquet`, {
    columns: SPEECH_COLUMNS,
    shuffle: { seed: 1 },
    epochs: 2,
  }),
  flow: [map(transcript), decodeMedia(), encode({ maxTokens: 1024 }), batch({ tokens: 2048, clips: 8 })],
  step: adapterStep,
  sinks: [
    metrics(),
    checkpoints({ every: 100, keep: 2 }),
    evaluation({
      every: 100,
      source: take(parquet<SpeechRow>(`${speech}/validation/0000.parquet`, { columns: SPEECH_COLUMNS }), 100),
      flow: [map(transcript), decodeMedia(), encode(), batch({ size: 4 })],
      scores: [wordErrorRate(), promptAloneWords()],
      maxNewTokens: 128,
    }),
    report(),
  ],
});
