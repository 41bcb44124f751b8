import type { NemuError } from './errors.ts';

/** A phase of the guest's own start: its uptime in seconds. */
export interface GuestPhase {
  readonly name: string;
  readonly uptime: number;
}

/** Seconds. */
const SIMULTANEOUS = 1;

/** How far a guest's start is. One that is reset starts anew, and has to be waited for again. */
export class GuestStart {
  readonly phases: GuestPhase[] = [];
  /** Exit status of the command or shell, once reported. */
  status: number | undefined;
  #ready = deferred();
  #settled = deferred();

  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  /** Whether a phase is of another start than those before it. Two that are told at the same time may change places. */
  isAnother({ name, uptime }: GuestPhase): boolean {
    return this.phases.some((before) => uptime < before.uptime - (before.name === name ? 0 : SIMULTANEOUS));
  }

  reached(phase: GuestPhase): void {
    this.phases.push(phase);
    if (phase.name === 'ready') this.#ready.resolve();
    if (phase.name === 'settled' || phase.name === 'agent') this.#settled.resolve();
  }

  /** The guest that was is no more. Who still waits for it waits for the next one. */
  renew(): void {
    const names = this.phases.map(({ name }) => name);
    if (names.includes('ready')) this.#ready = deferred();
    if (names.includes('settled') || names.includes('agent')) this.#settled = deferred();
    this.phases.length = 0;
    this.status = undefined;
  }

  /** There will be no guest. */
  fail(error: NemuError): void {
    this.#ready.reject(error);
    this.#settled.reject(error);
  }
}

function deferred(): PromiseWithResolvers<void> {
  const made = Promise.withResolvers<void>();
  // Nobody may be waiting.
  made.promise.catch(() => {});
  return made;
}
