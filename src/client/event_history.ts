/** What happened to a machine, for those who come later. */
import type { GuestChannel, GuestEvent } from './guest_session.ts';
import type { MachineClient, MachineEvent } from './machine_client.ts';

/** Something that this side noticed: a viewer who came, bytes that were lost. */
export interface NoteEvent {
  readonly type: 'note';
  readonly text: string;
}

export type NotedEvent = { readonly time: string } & (MachineEvent | GuestEvent | NoteEvent);

/** How a machine began, and what happened last. */
const FIRST = 200;
const LAST = 800;

/** A bounded list of events: those of the start stay, and the newest. */
export class EventHistory {
  readonly #first: NotedEvent[] = [];
  #last: NotedEvent[] = [];
  #forgotten = 0;
  readonly #off: (() => void)[];
  /** Told of each event. */
  onEvent: ((event: NotedEvent) => void) | undefined;

  constructor(machine: MachineClient, guest?: GuestChannel) {
    const take = (event: MachineEvent | GuestEvent) => this.#add(event);
    this.#off = [machine.onEvent(take), ...(guest ? [guest.onEvent(take)] : [])];
  }

  note(text: string): void {
    this.#add({ type: 'note', text });
  }

  #add(event: MachineEvent | GuestEvent | NoteEvent): void {
    const noted = { time: new Date().toISOString(), ...event };
    if (this.#first.length < FIRST) this.#first.push(noted);
    else this.#last.push(noted);
    if (this.#last.length >= 2 * LAST) {
      this.#forgotten += this.#last.length - LAST;
      this.#last = this.#last.slice(-LAST);
    }
    this.onEvent?.(noted);
  }

  get events(): readonly NotedEvent[] {
    const last = this.#last.slice(-LAST);
    const forgotten = this.#forgotten + this.#last.length - last.length;
    if (forgotten === 0) return [...this.#first, ...last];
    const gap: NotedEvent = {
      time: last[0].time,
      type: 'note',
      text: `${forgotten} events before this were forgotten.`,
    };
    return [...this.#first, gap, ...last];
  }

  close(): void {
    for (const off of this.#off) off();
  }
}
