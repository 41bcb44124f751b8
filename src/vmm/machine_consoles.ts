import { NemuError } from '../client/errors.ts';
import type { MachineEvent } from '../client/machine_client.ts';
import { RingConsole } from './console_stream.ts';
import type { SerialRings } from './serial_channel.ts';

/** The main thread's ends of a machine's console streams, by name: those of the start and those that devices bring. */
export class MachineConsoles {
  readonly #consoles = new Map<string, RingConsole>();
  readonly #wake: () => void;
  readonly #emit: (event: MachineEvent) => void;

  /** @param wake has the machine thread look at its ends of the rings. */
  constructor(names: readonly string[], wake: () => void, emit: (event: MachineEvent) => void) {
    this.#wake = wake;
    this.#emit = emit;
    for (const name of names) this.#make(name);
  }

  #make(name: string): SerialRings {
    const made = new RingConsole(name, this.#wake);
    this.#consoles.set(name, made);
    return made.rings;
  }

  get names(): readonly string[] {
    return [...this.#consoles.keys()];
  }

  /** The rings for the other end, of each stream. */
  get rings(): Readonly<Record<string, SerialRings>> {
    return Object.fromEntries([...this.#consoles].map(([name, { rings }]) => [name, rings]));
  }

  /** @throws NemuError CONSOLE for a name that is not there. */
  get(name: string, machine: string): RingConsole {
    const console = this.#consoles.get(name);
    if (console) return console;
    throw new NemuError('CONSOLE', `The machine ${machine} has no console "${name}".`, {
      hint: `It has ${this.names.join(', ') || 'none'}.`,
    });
  }

  /** A stream has bytes to take, or room to give. */
  rung(name: string): void {
    this.#consoles.get(name)?.rung();
  }

  /** What the guest printed before an event, or its end, belongs before that. */
  drain(): void {
    for (const console of this.#consoles.values()) console.drain();
  }

  /** Streams that a device brings. @returns the rings for the other end. */
  add(streams: readonly { readonly name: string }[]): Record<string, SerialRings> {
    const rings: Record<string, SerialRings> = {};
    for (const { name } of streams) {
      rings[name] = this.#make(name);
      this.#emit({ type: 'console', name, change: 'added' });
    }
    return rings;
  }

  remove(streams: readonly { readonly name: string }[]): void {
    for (const { name } of streams) {
      this.#consoles.get(name)?.drain();
      this.#consoles.delete(name);
      this.#emit({ type: 'console', name, change: 'removed' });
    }
  }
}
