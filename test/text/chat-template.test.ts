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

  it('trims as Python does: control separators too, zero-width and replaced characters not', () => {
    const content = '\x1c \x85a\x85b\x1f\x85 \u3000';
    expect(template.render([{ role: 'user', content }], { variables })).toContain(
      'user\na\x85b<end_of_turn>',
    );
    const kept = '\u200ba\u180e';
    expect(template.render([{ role: 'user', content: kept }], { variables })).toContain(`user\n${kept}<end`);
  });

  it('writes the same whatever ends the lines of its file', () => {
    const messages = [{ role: 'user', content: 'a\r\nb' }];
    const written = template.render(messages, { variables });
    expect(written).toContain('a\r\nb');
    for (const end of ['\r\n', '\r']) {
      const other = new ChatTemplate(template.source.replaceAll('\n', end));
      expect(other.render(messages, { variables })).toBe(written);
    }
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

  it.each([
    ['writes without end', '{% for i in range(99000) %}{{ messages[0].content }}{% endfor %}'],
    ['counts to a number beyond reach', '{% for i in range(10 ** 12) %}{% endfor %}'],
    [
      'loops in loops',
      '{% for i in range(9999) %}{% for j in range(9999) %}{% set x = 1 %}{% endfor %}{% endfor %}',
    ],
    ['calls itself', '{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}'],
    [
      'doubles a text',
      "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    ],
    [
      'doubles a list',
      '{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}',
    ],
    [
      'nests a list in itself, twice over each time',
      '{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}',
    ],
    [
      'nests an object in itself',
      "{% set n = namespace(x={'a': 1}) %}{% for i in range(60) %}{% set n.x = {'a': n.x, 'b': n.x} %}{% endfor %}{{ n.x | tojson }}",
    ],
    ['indents by a number beyond reach', '{{ messages[0].content | indent(10 ** 8, true) }}'],
    [
      'keeps much',
      '{% set n = namespace(x=[]) %}{% for i in range(9999) %}{% set n.x = n.x + [messages[0].content | upper] %}{% endfor %}',
    ],
    ['holds itself', '{% set n = namespace() %}{% set n.x = n %}{{ n.x | tojson }}{{ [n, n] }}'],
  ])('stops a template that %s', (_, source) => {
    const template = new ChatTemplate(source, 'evil.jinja');
    const began = performance.now();
    expect(() => template.render([{ role: 'user', content: 'text '.repeat(200) }])).toThrow(TextError);
    expect(performance.now() - began).toBeLessThan(10_000);
  });

  it('says what a template may use', () => {
    const loop = new ChatTemplate('{% for i in range(10 ** 12) %}{% endfor %}', 'loop.jinja');
    expect(() => loop.render([{ role: 'user', content: 'hi' }])).toThrow(
      'loop.jinja: expected at most 1049696 numbers in a range for this conversation, received a template that goes on; ' +
        "take chat_template.jinja from the model's folder",
    );
    expect(() => new ChatTemplate('a'.repeat(2 ** 21), 'long.jinja')).toThrow(
      "long.jinja: expected a template of at most 1048576 characters, received 2097152; take chat_template.jinja from the model's folder",
    );
  });

  it('leaves a long conversation its room', () => {
    const messages = Array.from({ length: 4000 }, (_, i) => ({
      role: i % 2 === 0 ? 'user' : 'assistant',
      content: [{ type: 'text', text: `turn ${i} ${'word '.repeat(50)}` }],
    }));
    expect(template.render(messages, { variables }).length).toBeGreaterThan(1_000_000);
  });

  it('knows what templates call by name', () => {
    const named = new ChatTemplate(
      "{{ strftime_now('%Y-%m-%d %B') }} {{ range(3, 9, 3) }} {{ none is none }} {{ True }}",
    );
    const written = named.render([{ role: 'user', content: '' }]);
    expect(written).toMatch(/^\d{4}-\d\d-\d\d [A-Z][a-z]+ \[3, 6\] true true$/);
  });
});
