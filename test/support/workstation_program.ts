/** The workstation on a scripted machine, as a program in a terminal: `node program.mjs [option]...`. */
import { setInterval } from 'node:timers';
import type { ReadStream, WriteStream } from 'node:tty';
import { parseArgs } from 'node:util';
import type { Glyphs } from '../../src/tui/graph.ts';
import type { ThemeName } from '../../src/tui/style.ts';
import { runWorkstation } from '../../src/tui/workstation.tsx';
import { Flood } from './flood.ts';
import { HeldClock } from './held_clock.ts';
import { ScriptedMachine } from './scripted_machine.ts';

const { values } = parseArgs({
  options: {
    readonly: { type: 'boolean', default: false },
    theme: { type: 'string', default: 'dark' },
    graphs: { type: 'string', default: 'braille' },
    /** Time goes on, instead of standing still once the graphs are full. */
    live: { type: 'boolean', default: false },
    /** vCPUs do nothing. */
    idle: { type: 'boolean', default: false },
    /** Bytes a second that the guest prints. */
    flood: { type: 'string' },
  },
});
const machine = new ScriptedMachine({ busy: !values.idle });
const flood = values.flood === undefined ? undefined : new Flood(machine.com1, Number(values.flood));
const alive = setInterval(() => {}, 1 << 30);
const shown = runWorkstation(machine.client, undefined, {
  input: process.stdin as ReadStream,
  output: process.stdout as unknown as WriteStream,
  place: "this host's KVM",
  readonly: values.readonly,
  theme: values.theme as ThemeName,
  glyphs: values.graphs as Glyphs,
  exports: '/nonexistent',
  canStay: true,
  ...(!values.live && { clock: new HeldClock(48) }),
});
machine.tellPast();
await shown;
flood?.stop();
clearInterval(alive);
