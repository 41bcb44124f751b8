/** What keys do to a workstation on a scripted machine. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import type { MachineState } from '../../../src/client/machine_client.ts';
import type { Vm } from '../../../src/repl/vm.ts';
import { frameOf } from '../../../src/tui/frame.ts';
import { plainText } from '../../../src/tui/style.ts';
import { TerminalPane } from '../../../src/tui/terminal_pane.ts';
import { ScriptedMachine } from '../../support/scripted_machine.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

async function open(options: Parameters<typeof scriptedStation>[0] = {}) {
  const station = scriptedStation(options);
  onTestFinished(() => station.model.close());
  await station.model.refresh();
  frameOf(station, 120, 40);
  return station;
}

test('the answer to a question is about what was asked, or does nothing', async () => {
  const machine = new ScriptedMachine({ busy: true });
  const station = await open({ machine });
  const asked: string[] = [];
  (station.vm as { unplug: unknown }).unplug = async (id: string) => void asked.push(id);
  station.focusOn('vcpus');
  station.key('end', '');
  expect(station.chosen).toBe('cpu3');
  station.key('d', 'd');
  const counters = machine.counters.bind(machine);
  machine.counters = async () => {
    const report = await counters();
    return { ...report, vcpus: report.vcpus.filter(({ index }) => index !== 3) };
  };
  await station.model.refresh();
  frameOf(station, 120, 40);
  // The list stays where it was.
  expect(station.chosen).toBe('cpu2');
  station.key('y', 'y');
  expect(asked).toEqual([]);
  expect(station.notice?.text).toContain('what was asked about has changed meanwhile');
  station.key('d', 'd');
  station.key('y', 'y');
  expect(asked).toEqual(['cpu2']);
});

test('what is chosen elsewhere is nothing to a question about the whole machine', async () => {
  const station = await open();
  let resets = 0;
  (station.vm as unknown as { reset: Vm['reset'] }).reset = async () => void resets++;
  station.focusOn('events');
  station.key('X', 'X');
  station.model.say('guest', 'one more');
  frameOf(station, 120, 40);
  station.key('y', 'y');
  expect(resets).toBe(1);
});

test('to ask for everything again and again does not ask more often afterwards', async () => {
  const machine = new ScriptedMachine({ busy: true });
  const station = await open({ machine });
  let polls = 0;
  const counters = machine.counters.bind(machine);
  machine.counters = async () => {
    polls++;
    await sleep(1);
    return counters();
  };
  for (let i = 0; i < 10; i++) station.key('R', 'R');
  await sleep(50);
  polls = 0;
  await sleep(1500);
  expect(polls).toBeLessThanOrEqual(2);
});

test('what the host cannot do is told, and ends nothing', async () => {
  const station = await open({
    host: {
      shell: () => {
        throw new Error('There are no pseudo-terminals left.');
      },
    },
  });
  station.key('!', '!');
  await sleep(1);
  expect(station.notice).toMatchObject({ level: 'bad', text: 'There are no pseudo-terminals left.' });
});

test('what is pasted is one line of text, wherever one types', async () => {
  const station = await open();
  station.focusOn('pci');
  station.key('/', '/');
  station.paste('net\x1b[31m0\nmore');
  expect(station.filterOf('pci')).toBe('net0');
  station.key('esc', '');
  station.key(':', ':');
  station.paste('a\tb\x07');
  expect(plainText(frameOf(station, 120, 40).overlay?.lines[1] ?? [])).toContain(':a b ');
});

test('what is done again is asked about, as what is taken back', async () => {
  const station = await open();
  const { journal } = station.vm;
  let redone = 0;
  Object.defineProperty(journal, 'last', { get: () => ({ done: undefined, undone: "vm.unplug('dimm0')" }) });
  journal.redo = async () => {
    redone++;
    return "vm.unplug('dimm0')";
  };
  station.key('ctrl-r', '');
  const asked = frameOf(station, 80, 24).overlay?.lines.map(plainText).join('\n');
  expect(asked).toContain("Do this again? vm.unplug('dimm0')");
  expect(redone).toBe(0);
  station.key('y', 'y');
  expect(redone).toBe(1);
});

test.each([
  [56, 14],
  [80, 24],
])('a long question of a screen of %i×%i is cut, and not its answers', async (columns, rows) => {
  const station = await open();
  station.ask(`Take this back? ${'vm.plug({ kind: 1 }) '.repeat(200)}`, [{ key: 'y', text: 'undo', run: () => {} }]);
  const lines = frameOf(station, columns, rows).overlay?.lines.map(plainText) ?? [];
  expect(lines.at(-5)).toMatch(/ … +│$/);
  expect(lines.slice(-3, -1).map((line) => line.slice(2, -1).trim())).toEqual(['y  undo', 'Esc not now']);
});

test('who leaves a machine of this process is offered what is possible', async () => {
  const machine = new ScriptedMachine({ busy: true });
  const offered = async (state: MachineState, readonly = false) => {
    machine.state = state;
    const station = await open({ machine, readonly, canStay: true });
    station.key('q', 'q');
    return station.overlay?.view(80, 20).lines.map(plainText) ?? [];
  };
  const keys = (lines: string[]) => lines.slice(2, -1).map((line) => line.trim()[0]);
  expect(keys(await offered('running'))).toEqual(['o', 'b', 'y']);
  expect(keys(await offered('running', true))).toEqual(['b', 'y']);
  expect(keys(await offered('paused'))).toEqual(['b', 'y']);
  expect((await offered('paused'))[0]).toBe('The guest is paused, and this process is its machine.');
});

test('on a screen that is too small a question can be read', async () => {
  const station = await open();
  station.key('K', 'K');
  expect(frameOf(station, 40, 10).tooSmall?.join('\n')).toContain('Esc not now');
  station.key('esc', '');
  expect(station.overlay).toBeUndefined();
});

test('on a screen that is too small keys leave or go back, and do nothing that would not be seen', async () => {
  const left: string[] = [];
  const station = await open({ attached: true, host: { leave: (how) => left.push(how) } });
  let pauses = 0;
  (station.vm as unknown as { pause: Vm['pause'] }).pause = async () => void pauses++;
  station.key('/', '/');
  expect(frameOf(station, 40, 10).tooSmall?.[0]).toBe('NEMU needs 56×14; this is 40×10.');
  station.key('p', 'p');
  station.paste('text');
  expect(station.filterOf('console')).toBe('');
  station.key('esc', '');
  expect(station.filtering).toBeUndefined();
  for (const key of ['p', 'K', ':', '?', 'tab', 'down', '2', 'T', 'i', 'v']) station.key(key, key);
  expect(pauses).toBe(0);
  expect(station).toMatchObject({ overlay: undefined, focus: 'console', notice: undefined });
  expect(station).toMatchObject({ typingInto: undefined, copying: undefined, theme: { name: 'dark' } });
  station.key('q', 'q');
  station.key('ctrl-c', 'c');
  expect(left).toEqual(['ends', 'ends']);
  frameOf(station, 120, 40);
  station.key('p', 'p');
  expect(pauses).toBe(1);
});

test('Ctrl-C does what Esc does in what stands in front, and in a filter', async () => {
  const left: string[] = [];
  const station = await open({ attached: true, host: { leave: (how) => left.push(how) } });
  station.focusOn('vcpus');
  frameOf(station, 120, 40);
  for (const opening of [[':'], ['?'], ['K'], ['a', 'enter'], ['enter']]) {
    for (const key of opening) station.key(key, key);
    expect(station.overlay, opening.join()).toBeDefined();
    station.key('ctrl-c', 'c');
    expect(station.overlay, opening.join()).toBeUndefined();
  }
  station.key('/', '/');
  station.key('x', 'x');
  station.key('ctrl-c', 'c');
  expect(station.filtering).toBeUndefined();
  expect(station.filterOf('vcpus')).toBe('');
  station.focusOn('console');
  station.key('v', 'v');
  expect(station.copying).toBeDefined();
  station.key('ctrl-c', 'c');
  expect(station.copying).toBeUndefined();
  expect(left).toEqual([]);
  station.key('ctrl-c', 'c');
  expect(left).toEqual(['ends']);
});

test('who types sees it, whatever was looked at before', async () => {
  let parsed = () => {};
  const pane = new TerminalPane({ name: 'com1', send: () => {}, changed: () => parsed() });
  onTestFinished(() => pane.close());
  const drawn = new Promise<void>((resolve) => {
    parsed = resolve;
  });
  pane.write(Buffer.from('line\r\n'.repeat(200)));
  await drawn;
  for (const send of [() => pane.type(Buffer.from('x')), () => pane.paste(Buffer.from('x'), true, true)]) {
    pane.scroll(20);
    expect(pane.scrolledBack).toBe(20);
    send();
    expect(pane.scrolledBack).toBe(0);
  }
});

test('on a screen that becomes too small nobody types into what is not seen', async () => {
  const pane = new TerminalPane({ name: 'com1', send: () => {}, changed: () => {} });
  onTestFinished(() => pane.close());
  const given: (TerminalPane | undefined)[] = [];
  const station = await open({ consoles: [pane], host: { typing: (to) => given.push(to) } });
  station.focusOn('console');
  station.key('enter', '');
  expect(given).toEqual([pane]);
  frameOf(station, 40, 10);
  await Promise.resolve();
  expect(given).toEqual([pane, undefined]);
  expect(station.typingInto).toBeUndefined();
});

test('help lists every key, those that move among them', async () => {
  const station = await open();
  const keys = ['↑ k', '↓ j', 'PgUp', 'PgDn', 'Home g', 'End G', 'Esc', 'Tab → l', 'Shift-Tab ← h', 'Ctrl-l'];
  station.key('?', '?');
  const lines = station.overlay?.view(120, 200).lines.map(plainText) ?? [];
  for (const key of keys)
    expect(
      lines.some((line) => line.trimStart().startsWith(`${key}  `)),
      key,
    ).toBe(true);
});

test('a page is as much as the pane shows', async () => {
  const station = await open();
  for (let i = 0; i < 100; i++) station.model.say('guest', String(i));
  station.focusOn('events');
  const shown = () => frameOf(station, 120, 60).rows.events?.length ?? 0;
  const before = shown();
  expect(before).toBeGreaterThan(10);
  const last = Number(station.chosen);
  station.key('pageup', '');
  expect(Number(station.chosen)).toBe(last - before);
  station.key('home', '');
  expect(station.chosen).toBe('0');
});

test('without a console nothing is done in silence', async () => {
  const zoomed: unknown[] = [];
  const station = await open({ consoles: [], host: { zoom: async (pane) => void zoomed.push(pane) } });
  for (const key of ['enter', 'i', 'z', 't', '[', ']', 'v', 'f', 'r', '/']) {
    station.key(key, key);
    expect(station.notice?.text, key).toContain('the machine has no console');
  }
  expect(station.filtering).toBeUndefined();
  expect(zoomed).toEqual([]);
});

test('nobody types to a guest that has ended; the REPL and programs of the host go on', async () => {
  const machine = new ScriptedMachine({ busy: false });
  const panes = ['com1', 'host'].map((name) => new TerminalPane({ name, send: () => {}, changed: () => {} }));
  onTestFinished(() => {
    for (const pane of panes) pane.close();
  });
  const station = await open({ machine, consoles: panes });
  machine.state = 'ended';
  station.key('enter', '');
  expect(station.typingInto).toBeUndefined();
  expect(station.notice?.text).toBe('type into it: not now, the machine has ended.');
  station.key(']', ']');
  station.key('enter', '');
  expect(station.typingInto).toBe(panes[1]);
  station.stopTyping();
  station.focusOn('repl');
  station.key('enter', '');
  expect(station.typingInto).toBe(station.repl);
});

test('the screen is drawn anew, whatever stands in front', async () => {
  let drawn = 0;
  const station = await open({ host: { redraw: () => drawn++ } });
  station.key('ctrl-l', '');
  station.key(':', ':');
  station.key('ctrl-l', '');
  frameOf(station, 40, 10);
  station.key('ctrl-l', '');
  expect(drawn).toBe(3);
  expect(station.overlay).toBeDefined();
});

test('the smallest screen is as large as it says', async () => {
  const station = await open();
  expect(frameOf(station, 56, 14).tooSmall).toBeUndefined();
  expect(frameOf(station, 56, 13).tooSmall).toBeDefined();
  expect(frameOf(station, 55, 14).tooSmall).toBeDefined();
});
