// Evaluates a checkpoint over a stream of held-out questions:
// `pipe eval pipelines/eval.pipeline.ts --set model.path=runs/sft/checkpoint-900`

import {
  batch,
  decodeMedia,
  encode,
  evaluation,
  exactMatch,
  flatMap,
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
  flow: [flatMap((row: EasyVqaRow) => questions(row)), decodeMedia(), encode(), batch({ size: 50 })],
  sinks: [
    metrics(),
    evaluation({
      source: parquet<EasyVqaRow>('fixtures/easy-vqa/test.parquet'),
      scores: [exactMatch({ by: 'kind' }), promptAlone()],
      maxNewTokens: 4,
    }),
    report(),
  ],
});
