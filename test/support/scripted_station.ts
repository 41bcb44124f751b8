/** The workstation without a terminal, on a scripted machine. */
import { Vm } from '../../src/repl/vm.ts';
import type { StationClock } from '../../src/tui/clock.ts';
import { MachineModel } from '../../src/tui/model.ts';
import { Station, type StationHost, type StationOptions } from '../../src/tui/station.ts';
import { TerminalPane } from '../../src/tui/terminal_pane.ts';
import { ScriptedMachine } from './scripted_machine.ts';

export interface ScriptedStationOptions extends Partial<Omit<StationOptions, 'host' | 'model'>> {
  readonly host?: Partial<StationHost>;
  readonly machine?: ScriptedMachine;
  readonly clock?: StationClock;
}

export function scriptedStation({ host, machine, clock, ...options }: ScriptedStationOptions = {}): Station {
  const { client } = machine ?? new ScriptedMachine({ busy: true });
  const pane = (name: string) => new TerminalPane({ name, send: () => {}, changed: () => {} });
  return new Station({
    model: new MachineModel(new Vm({ machine: client, guest: undefined }), undefined, clock),
    ...{ consoles: [pane('com1')], repl: pane('REPL'), place: 'here', readonly: false, attached: false },
    ...{ canStay: false, theme: 'dark', glyphs: 'braille', unicode: true, colours: 'all', exports: '/nonexistent' },
    ...options,
    host: { zoom: async () => {}, redraw: () => {}, typing: () => {}, copy: () => '', leave: () => {}, ...host },
  });
}
