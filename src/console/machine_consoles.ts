/** The consoles of a machine, each with a hub, for any number of viewers. */
import { NemuError } from '../client/errors.ts';
import type { MachineClient } from '../client/machine_client.ts';
import type { ConsoleProvider, ConsoleReport, OpenConsole, SharedConsole } from '../client/shared_console.ts';
import { ConsoleHub, type ConsoleTap } from './hub.ts';

export interface MachineConsolesOptions {
  readonly names: readonly string[];
  /** What else takes every byte of a console. */
  readonly taps?: (name: string) => readonly ConsoleTap[];
  /** A driver's terminal has another size, and the machine has no way to tell the guest. */
  readonly resized?: (name: string, rows: number, columns: number) => void;
}

export class MachineConsoles implements ConsoleProvider {
  readonly names: readonly string[];
  readonly #machine: MachineClient;
  readonly #hubs: ReadonlyMap<string, ConsoleHub>;

  constructor(machine: MachineClient, { names, taps, resized }: MachineConsolesOptions) {
    this.names = names;
    this.#machine = machine;
    this.#hubs = new Map(
      names.map((name) => {
        const onResize = (rows: number, columns: number) => {
          const told = machine.resizeConsole(name, rows, columns).catch(() => true);
          void told.then((guestKnows) => guestKnows || resized?.(name, rows, columns));
        };
        return [name, new ConsoleHub(machine.console(name), { taps: taps?.(name) ?? [], onResize })];
      }),
    );
  }

  /** @throws NemuError CONSOLE for a name that is none. */
  hub(name: string): ConsoleHub {
    const hub = this.#hubs.get(name);
    if (hub) return hub;
    throw new NemuError('CONSOLE', `The machine ${this.#machine.description.name} hands out no console "${name}".`, {
      hint: `It has ${this.names.join(', ') || 'none'}.`,
    });
  }

  open(name: string, options: OpenConsole): SharedConsole {
    return this.hub(name).open(options);
  }

  search(name: string, text: string, most: number): string[] {
    return this.hub(name).search(text, most);
  }

  report(): ConsoleReport[] {
    return [...this.#hubs.values()].map((hub) => hub.report());
  }

  close(): void {
    for (const hub of this.#hubs.values()) hub.close();
  }
}
