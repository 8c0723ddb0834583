import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { TextError } from '../../src/errors.js';
import { ChatTemplate } from '../../src/text/index.js';
import { tinyFolder } from '../reference/processor-values.js';

const template = new ChatTemplate(
  readFileSync(join(tinyFolder, 'chat_template.jinja'), 'utf8'),
  'chat_template.jinja',
);
const variables = { bos_token: '<bos>' };

describe('ChatTemplate', () => {
  it("writes turns in the model's format", () => {
    const messages = [
      { role: 'user', content: [{ type: 'image' }, { type: 'text', text: ' what? ' }] },
      { role: 'assistant', content: 'red' },
    ];
    expect(template.render(messages, { variables })).toBe(
      '<bos><start_of_turn>user\n<image_soft_token>what?<end_of_turn>\n<start_of_turn>model\nred<end_of_turn>\n',
    );
    expect(template.render(messages.slice(0, 1), { variables, addGenerationPrompt: true })).toBe(
      '<bos><start_of_turn>user\n<image_soft_token>what?<end_of_turn>\n<start_of_turn>model\n',
    );
  });

  it("passes on the template's own words when it refuses the order of turns", () => {
    const messages = ['user', 'user'].map((role) => ({ role, content: 'hi' }));
    expect(() => template.render(messages)).toThrow(TextError);
    expect(() => template.render(messages)).toThrow(
      'chat_template.jinja: expected a conversation that the template takes, received roles user, user: ' +
        'Conversation roles must alternate user/assistant/user/assistant/...; order the turns as the model expects them',
    );
  });

  it('refuses an empty conversation', () => {
    expect(() => template.render([])).toThrow(
      'chat_template.jinja: expected at least one message, received none; drop empty conversations',
    );
  });

  it('refuses a template that does not parse', () => {
    expect(() => new ChatTemplate('{% for x in %}', 'broken.jinja')).toThrow(
      /^broken\.jinja: expected a jinja template, received .*; take chat_template\.jinja from the model's folder$/,
    );
  });

  it('refuses output out of all proportion to the conversation', () => {
    const flood = new ChatTemplate(
      '{% for i in range(12000) %}{{ messages[0].content }}{% endfor %}',
      'flood.jinja',
    );
    expect(() => flood.render([{ role: 'user', content: 'flood '.repeat(20) }])).toThrow(
      'flood.jinja: expected at most 1051584 characters for this conversation, received 1440000; ' +
        "take chat_template.jinja from the model's folder",
    );
  });
});
