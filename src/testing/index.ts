// What tests of flows are written with: `import { testFlow } from 'sluice/testing'`. Needs no test runner.

export { testFlow, type FlowTest } from './test-flow.js';
export type { FlowExpectation, FlowPicture } from './picture.js';
export { fault, type Fault } from './source.js';
export { VirtualClock } from './clock.js';
