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
  #up = deferred();
  #ready = deferred();
  #settled = deferred();

  /** Our init has done its part: the guest is ready, or has a system of its own to start. */
  get up(): Promise<void> {
    return this.#up.promise;
  }

  /** Something takes requests: our init, or our agent beside another. */
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
    const is = (...names: string[]) => names.includes(phase.name);
    if (is('ready', 'root')) this.#up.resolve();
    if (is('ready', 'agent')) this.#ready.resolve();
    if (is('settled', 'agent')) this.#settled.resolve();
  }

  /** The guest that was is no more. Who still waits for it waits for the next one. */
  renew(): void {
    const was = (...names: string[]) => this.phases.some(({ name }) => names.includes(name));
    if (was('ready', 'root')) this.#up = deferred();
    if (was('ready', 'agent')) this.#ready = deferred();
    if (was('settled', 'agent')) this.#settled = deferred();
    this.phases.length = 0;
    this.status = undefined;
  }

  /** There will be no guest. */
  fail(error: NemuError): void {
    this.#up.reject(error);
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
