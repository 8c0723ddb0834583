// Evaluates a checkpoint over a stream of held-out questions:
// `pipe eval pipelines/eval.pipeline.ts --set model.path=runs/sft/checkpoint-900`

import {
  batch,
  decodeMedia,
  encode,
  evaluation,
  exactMatch,
  gemma3n,
  metrics,
  parquet,
  pipeline,
  promptAlone,
  report,
} from 'sluice';
import { type EasyVqaRow, questions } from './easy-vqa.js';

export default pipeline({
  name: 'eval',
  model: gemma3n('fixtures/tiny-gemma3n'),
  flow: [decodeMedia(), encode(), batch({ size: 50 })],
  sinks: [
    metrics(),
    evaluation({
      source: parquet('fixtures/easy-vqa/test.parquet', { explode: (row: EasyVqaRow) => questions(row) }),
      scores: [exactMatch({ by: 'kind' }), promptAlone()],
      maxNewTokens: 4,
    }),
    report(),
  ],
});
