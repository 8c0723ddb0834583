// Pictures and speech in one run by LoRA, each evaluated on its own.

import {
  type Sample,
  checkpoints,
  decodeMedia,
  encode,
  evaluation,
  batch,
  exactMatch,
  flatMap,
  gemma3n,
  lora,
  map,
  metrics,
  mix,
  parquet,
  pipeline,
  promptAlone,
  promptAloneWords,
  repeat,
  report,
  skip,
  take,
  wordErrorRate,
} from 'sluice';
import {
  CAULDRON_COLUMNS,
  type CauldronRow,
  SPEECH_COLUMNS,
  type SpeechRow,
  cauldronConversation,
  cauldronQuestions,
  transcript,
} from '../layouts.js';
import { adapterStep, published } from '../published.js';

const speech = 'hf://datasets/openslr/librispeech_asr/clean';
const pictures = parquet<CauldronRow>(
  'hf://datasets/HuggingFaceM4/the_cauldron@~parquet/ai2d/train/0000.parquet',
  {
    columns: CAULDRON_COLUMNS,
    shuffle: { seed: 1 },
  },
);
const clips = parquet<SpeechRow>(`${speech}/train.100/0000.parquet`, {
  columns: SPEECH_COLUMNS,
  shuffle: { seed: 1 },
  epochs: Infinity,
});
const conversation = (row: CauldronRow | SpeechRow): Sample =>
  'audio' in row ? transcript(row) : cauldronConversation(row);

export default pipeline({
  name: 'e2b-mixed-lora',
  seed: 1,
  model: gemma3n('google/gemma-3n-E2B-it', {
    ...published,
    adapter: lora({ rank: 16, alpha: 32, targets: ['text', 'projector'] }),
  }),
  source: mix([{ source: repeat(skip(pictures, 32), 3) }, { source: clips, weight: 2 }], {
    stop: 'first',
    seed: 1,
  }),
  flow: [
    map(conversation),
    decodeMedia(),
    encode({ maxTokens: 2048 }),
    batch({ tokens: 2048, images: 4, clips: 8 }),
  ],
  step: adapterStep,
  sinks: [
    metrics(),
    checkpoints({ every: 100, keep: 2 }),
    evaluation({
      name: 'pictures',
      every: 100,
      source: take(pictures, 32),
      flow: [flatMap(cauldronQuestions), decodeMedia(), encode(), batch({ size: 4 })],
      scores: [exactMatch(), promptAlone()],
      maxNewTokens: 16,
      limit: 128,
    }),
    evaluation({
      name: 'speech',
      every: 100,
      source: take(parquet<SpeechRow>(`${speech}/validation/0000.parquet`, { columns: SPEECH_COLUMNS }), 100),
      flow: [map(transcript), decodeMedia(), encode(), batch({ size: 4 })],
      scores: [wordErrorRate(), promptAloneWords()],
      maxNewTokens: 128,
    }),
    report(),
  ],
});
