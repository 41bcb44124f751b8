/** What a guest did to its terminal is undone, and no more than that. */
import { describe, expect, test } from 'vitest';
import { GuestModes, RESET_MODES } from '../../../src/console/terminal_modes.ts';
import { stateOf, terminal, write } from '../../support/terminal_state.ts';

const undoOf = (...pieces: string[]) => {
  const modes = new GuestModes();
  for (const piece of pieces) modes.saw(Buffer.from(piece, 'latin1'));
  return modes.undo();
};
const left = (undo: string) => undo.includes('\x1b[?1049l');

describe("a guest's modes", () => {
  test.each(['\x1b[?1049h', '\x1b[?1049;25h', '\x1b[?1;1049h', '\x1b[?47h', 'vi \x1b[?25;1047;1h'])(
    '%j is another screen, wherever its pieces end',
    (text) => {
      for (let cut = 0; cut <= text.length; cut++) {
        expect(left(undoOf(text.slice(0, cut), text.slice(cut))), `cut at ${cut}`).toBe(true);
      }
      expect(left(undoOf(...text))).toBe(true);
      for (const back of ['\x1b[?1049l', '\x1b[?25;1049l', '\x1bc']) expect(left(undoOf(text, ...back))).toBe(false);
    },
  );

  test('are undone: the terminal is as one that was never used, and the cursor is where it was', async () => {
    const used = terminal(6, 20);
    const fresh = terminal(6, 20);
    const guest =
      '\x1b[?1004h\x1b[4h\x1b(0\x1b)0\x0e\x1b[?1;5;9;45;1000;1002;1003;1005;1006;1015;1016;2004h\x1b=\x1b[2;4r\x1b[?7;25l\x1b[31m\x1b[20h\x1b[3;5H\x1b]0;half';
    await write(used, guest + undoOf(guest));
    await write(fresh, `\x1b[3;5H${RESET_MODES}`);
    expect(stateOf(used)).toEqual(stateOf(fresh));
    await write(used, '\r\nqqq$ ls');
    expect(used.buffer.active.getLine(3)?.translateToString(true)).toBe('qqq$ ls');
  });

  test('that move the cursor are undone where they are on', async () => {
    const used = terminal(6, 20);
    const guest = 'a\r\nb\r\nc\x1b[2;4r\x1b[?6h\x1b[2;3H';
    await write(used, guest + undoOf(guest));
    expect([used.modes.originMode, used.buffer.active.cursorY]).toEqual([false, 5]);
    const modes = undoOf('\x1b[?6h\x1b[?6l');
    expect(modes).not.toContain('\x1b[?6l');
  });

  test.each([
    ['\x1b[5 q', '\x1b[0 q'],
    ['\x1b[>1u', '\x1b[<99u'],
    ['\x1b[=5;1u', '\x1b[<99u'],
    ['\x1b[>4;2m', '\x1b[>4m'],
    ['\x1b]8;;http://example.org\x1b\\', '\x1b]8;;\x1b\\'],
    ['\x1b]11;#102030\x07', '\x1b]111\x1b\\'],
    ['\x1b]4;1;#102030\x07', '\x1b]104\x1b\\'],
    ['\x1b[?2048;2031h', '\x1b[?2031l'],
    ['\x1b[?2048h', '\x1b[?2048l'],
  ])('%j, which not every terminal knows, is undone for a guest that has used it', (used, undone) => {
    expect(undoOf(used)).toContain(undone);
    expect(undoOf(...used)).toContain(undone);
    expect(undoOf('hello\x1b[u')).not.toContain(undone);
    expect(undoOf(used, '\x1bc')).not.toContain(undone);
  });

  test('a colour that is asked for is not set', () => {
    expect(undoOf('\x1b]11;', '?\x07\x1b]4;7;?\x07')).not.toContain('\x1b]1');
  });

  test('keyboards of both screens are as they were', () => {
    const undo = undoOf('\x1b[>1u\x1b[?1049h\x1b[>1u');
    expect(undo.indexOf('\x1b[<99u')).toBeLessThan(undo.indexOf('\x1b[?1049l'));
    expect(undo.lastIndexOf('\x1b[<99u')).toBeGreaterThan(undo.indexOf('\x1b[?1049l'));
  });
});
