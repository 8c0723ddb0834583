// Text: the tokenizer and the chat template of a model folder.

export { ChatTemplate, type RenderOptions, type TemplateMessage } from './chat-template.js';
export { unguard } from './added-tokens.js';
export { Tokenizer, type EncodedStretch, type NamedToken } from './tokenizer.js';
