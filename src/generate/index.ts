export { Chat } from './chat.js';
export { generate } from './generate.js';
export type { EndReason, GenerateOptions } from './options.js';
export { generateText, generateTexts, textStream, type GeneratedText, type TextEvent } from './text.js';
export { refuseFaults, type GenerateTextOptions, type TextOptions } from './text-options.js';
