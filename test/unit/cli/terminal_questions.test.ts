import { describe, expect, test } from 'vitest';
import { QuestionFilter, TerminalQuestions, withoutQuestions } from '../../../src/cli/terminal_questions.ts';

const bytes = (text: string) => Buffer.from(text, 'latin1');
const unasked = () => {
  throw new Error('The terminal was asked.');
};

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
    const asked: string[] = [];
    let done = false;
    const answered = questions
      .answered(60_000, (question) => asked.push(question))
      .then(() => {
        done = true;
      });
    expect(asked).toEqual(['\x1b[c']);
    questions.typed(bytes('ls\x1b[5;5Rx'));
    await Promise.resolve();
    expect([questions.open, done]).toEqual([2, false]);
    questions.typed(bytes('\x1b[12'));
    questions.typed(bytes(';5R\x1b[?62;22c'));
    await answered;
    expect([questions.open, done]).toEqual([0, true]);
  });

  test('a terminal that says nothing holds nobody up; colours and moves are no questions', async () => {
    const questions = new TerminalQuestions();
    questions.printed(bytes('\x1b[31mred\x1b[0m\x1b[2J\x1b[H'));
    expect(questions.open).toBe(0);
    await questions.answered(60_000, unasked);
    questions.printed(bytes('\x1b[6n'));
    await questions.answered(5, () => {});
    expect(questions.open).toBe(2);
  });

  test.each([
    ['\x1b]11;?\x1b\\', '\x1b]11;rgb:1a1a/2b2b/3c3c\x1b\\'],
    ['\x1b[>q', '\x1bP>|xterm(380)\x1b\\'],
    ['\x1bP$qm\x1b\\', '\x1bP1$r0m\x1b\\'],
    ['\x1b[?u', '\x1b[?0u'],
    ['\x1b[?2026$p', '\x1b[?2026;2$y'],
    ['\x1b[18t', '\x1b[8;24;80t'],
    ['\x1b[>c', '\x1b[>41;380;0c'],
  ])('%j is answered by %j', (question, answer) => {
    const questions = new TerminalQuestions();
    questions.printed(bytes(question));
    expect(questions.open).toBe(1);
    questions.typed(bytes(answer));
    expect(questions.open).toBe(0);
  });

  test('what a terminal has not answered when it answers the next, which all do, it does not answer', async () => {
    const questions = new TerminalQuestions();
    questions.printed(bytes('\x1b[?u\x1b[>q\x1b[c\x1b[6n'));
    questions.typed(bytes('\x1b[?62c'));
    expect(questions.open).toBe(1);
    const answered = questions.answered(60_000, () => {});
    // A key of kitty's keyboard is no answer.
    questions.typed(bytes('\x1b[97;5u'));
    expect(questions.open).toBe(2);
    questions.typed(bytes('\x1b[?62c'));
    await answered;
    expect(questions.open).toBe(0);
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

  test.each([
    ...['\x1b]10;?\x07', '\x1b]11;?\x1b\\', '\x1b]4;0;?;1;?\x07', '\x1b]52;c;?\x1b\\', '\x1b]21;foreground=?\x1b\\'],
    ...['\x1b[>q', '\x1b[>0q', '\x1b[?2026$p', '\x1b[4$p', '\x1b[x', '\x1b[21t', '\x1b[14;2t', '\x1b[?u', '\x1b[?4m'],
    ...['\x1bP$qm\x1b\\', '\x1bP+q544e\x1b\\', '\x1b[1;1;2;2;3;3*y', '\x1b[?1;1;0S', '\x1b[1$w', '\x05', '\x1b[?996n'],
    ...['\x1b[6\rn', '\x1b\x00[6n', '\xc2\x9b6n', '\xc2\x9d10;?\xc2\x9c', '\xc2\x90$qm\xc2\x9c'],
  ])('%j is one of them, wherever its pieces end', (question) => {
    const text = `a${question}b`;
    for (let cut = 0; cut <= text.length; cut++) {
      const filter = new QuestionFilter();
      const pieces = [filter.take(bytes(text.slice(0, cut))), filter.take(bytes(text.slice(cut))), filter.rest()];
      expect(Buffer.concat(pieces).toString('latin1'), `cut at ${cut}`).toBe('ab');
    }
  });

  test('are no other sequences: those are shown as they came', () => {
    const text =
      '\x1b]0;who?\x07\x1b]8;;http://x/?a=b;?c\x1b\\\x1b]4;1;rgb:1/2/3\x07\x1b[>4;1m\x1b[?25h\x1b[5 q\x1b[22;0t\x1b[>1u\x1b[u\x1b[2S' +
      '\x1bPq#0;2;0;0;0~\x1b\\\x1b[1;1;2;2;3;3$r\x1b[!p\x1b[31mr\xc3\xa9d\x1b[m\x18\x1b[3';
    for (let cut = 0; cut <= text.length; cut++) {
      const filter = new QuestionFilter();
      const pieces = [filter.take(bytes(text.slice(0, cut))), filter.take(bytes(text.slice(cut))), filter.rest()];
      expect(Buffer.concat(pieces).toString('latin1'), `cut at ${cut}`).toBe(text);
    }
  });

  test('hold nothing long back: a picture goes on', () => {
    const filter = new QuestionFilter();
    const picture = `\x1bPq${'~'.repeat(10_000)}`;
    expect(filter.take(bytes(picture)).toString()).toBe(picture);
    expect(filter.take(bytes('~\x1b\\text')).toString()).toBe('~\x1b\\text');
  });
});
