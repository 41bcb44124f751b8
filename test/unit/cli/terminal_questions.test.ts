import { describe, expect, test } from 'vitest';
import { QuestionFilter, TerminalQuestions, withoutQuestions } from '../../../src/cli/terminal_questions.ts';

const bytes = (text: string) => Buffer.from(text, 'latin1');

describe("a guest's questions to the terminal", () => {
  test.each(['~ # \x1b[6n', '\x1b[c', '\x1b[?6n', '\x1b[>0c'])('%j is one, wherever its pieces end', (text) => {
    for (let cut = 0; cut <= text.length; cut++) {
      const questions = new TerminalQuestions();
      questions.printed(bytes(text.slice(0, cut)));
      questions.printed(bytes(text.slice(cut)));
      expect(questions.open, `cut at ${cut}`).toBe(1);
      questions.printed(bytes('more'));
      expect(questions.open).toBe(1);
    }
  });

  test('each waits for an answer of its own, which may come in pieces too', async () => {
    const questions = new TerminalQuestions();
    questions.printed(bytes('\x1b[6n~ # \x1b[6n'));
    let done = false;
    const answered = questions.answered(60_000).then(() => {
      done = true;
    });
    questions.typed(bytes('ls\x1b[5;5Rx'));
    await Promise.resolve();
    expect([questions.open, done]).toEqual([1, false]);
    questions.typed(bytes('\x1b[12'));
    questions.typed(bytes(';5R'));
    await answered;
    expect([questions.open, done]).toEqual([0, true]);
  });

  test('a terminal that says nothing holds nobody up; colours and moves are no questions', async () => {
    const questions = new TerminalQuestions();
    questions.printed(bytes('\x1b[31mred\x1b[0m\x1b[2J\x1b[H'));
    expect(questions.open).toBe(0);
    await questions.answered(60_000);
    questions.printed(bytes('\x1b[6n'));
    await questions.answered(5);
    expect(questions.open).toBe(1);
  });

  test('answers that nobody asked for are keys', () => {
    const questions = new TerminalQuestions();
    questions.typed(bytes('\x1b[5;5R'));
    questions.printed(bytes('\x1b[6n'));
    expect(questions.open).toBe(1);
  });

  test('are taken out of what is shown again', () => {
    expect(withoutQuestions(bytes('a\x1b[6nb\x1b[1mc\x1b[cd')).toString()).toBe('ab\x1b[1mcd');
  });

  test('are taken out of a stream wherever its pieces end, and nothing else is', () => {
    const text = 'a\x1b[6nb\x1b[1mc\x1b[?6n\x1b[>0cd\x1b[6';
    for (let cut = 0; cut <= text.length; cut++) {
      const filter = new QuestionFilter();
      const pieces = [filter.take(bytes(text.slice(0, cut))), filter.take(bytes(text.slice(cut))), filter.rest()];
      expect(Buffer.concat(pieces).toString('latin1'), `cut at ${cut}`).toBe('ab\x1b[1mcd\x1b[6');
    }
  });
});
