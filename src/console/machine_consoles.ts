/** The consoles of a machine, each with a hub, for any number of viewers. */
import { NemuError } from '../client/errors.ts';
import type { MachineClient } from '../client/machine_client.ts';
import type { ConsoleProvider, ConsoleReport, OpenConsole, SharedConsole } from '../client/shared_console.ts';
import { ConsoleHub, type ConsoleTap } from './hub.ts';
import { PtyBridge, type PtyEnd } from './pty_bridge.ts';

export interface MachineConsolesOptions {
  readonly names: readonly string[];
  /** A pseudo-terminal for a console; undefined where there is none to be had. */
  readonly terminal?: (name: string) => PtyEnd | undefined;
  /** What else takes every byte of a console. */
  readonly taps?: (name: string) => readonly ConsoleTap[];
  /** A driver's terminal has another size, and the machine has no way to tell the guest. */
  readonly resized?: (name: string, rows: number, columns: number) => void;
  /** Who came to a console, who drives it now, who left, in words. */
  readonly viewers?: (name: string, text: string) => void;
}

/** Consoles that are plugged while the machine runs have their hubs too, until they go. */
export class MachineConsoles implements ConsoleProvider {
  readonly #machine: MachineClient;
  readonly #options: MachineConsolesOptions;
  readonly #hubs = new Map<string, ConsoleHub>();
  readonly #bridges = new Map<string, PtyBridge>();
  readonly #unlisten: () => void;

  constructor(machine: MachineClient, options: MachineConsolesOptions) {
    this.#machine = machine;
    this.#options = options;
    for (const name of options.names) this.#add(name);
    this.#unlisten = machine.onEvent((event) => {
      if (event.type !== 'console') return;
      if (event.change === 'added') this.#add(event.name);
      else this.#remove(event.name);
    });
  }

  get names(): readonly string[] {
    return [...this.#hubs.keys()];
  }

  #add(name: string): void {
    const { taps, resized, viewers } = this.#options;
    const onResize = (rows: number, columns: number) => {
      const told = this.#machine.resizeConsole(name, rows, columns).catch(() => true);
      void told.then((guestKnows) => guestKnows || resized?.(name, rows, columns));
    };
    const onViewers = (text: string) => viewers?.(name, text);
    const options = { taps: taps?.(name) ?? [], onResize, onViewers };
    const hub = new ConsoleHub(this.#machine.console(name), options);
    this.#hubs.set(name, hub);
    const end = this.#options.terminal?.(name);
    if (end) this.#bridges.set(name, new PtyBridge(hub, end));
  }

  #remove(name: string): void {
    const hub = this.#hubs.get(name);
    this.#hubs.delete(name);
    const bridge = this.#bridges.get(name);
    this.#bridges.delete(name);
    void hub?.finish(`The console ${name} was unplugged.`).then(() => {
      bridge?.close();
      hub.close();
    });
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

  /** Resolves when all who look have seen the last output, or have not taken it in time, and have been told why. */
  async finish(why: string): Promise<void> {
    await Promise.all([...this.#hubs.values()].map((hub) => hub.finish(why)));
  }

  close(): void {
    this.#unlisten();
    for (const bridge of this.#bridges.values()) bridge.close();
    for (const hub of this.#hubs.values()) hub.close();
  }
}
