/**
 * One console, and all who look at it. The hub takes the guest's output once and at once, so that nobody's pace is the
 * guest's; each viewer has a place of its own in what was kept.
 */
import { StringDecoder } from 'node:string_decoder';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConsoleStream } from '../client/machine_client.ts';
import type { ConsoleReport, ConsoleRole, OpenConsole, SharedConsole } from '../client/shared_console.ts';
import { Screen } from './screen.ts';
import { Scrollback } from './scrollback.ts';

const SCROLLBACK_BYTES = 4 << 20;
/** Bytes that a viewer gets in one piece. */
const PIECE = 64 * 1024;
const MAX_SIDE = 1000;
/** So long the viewers of a console that has ended may take for the last output, and so long without taking any. */
const LAST_MS = 5000;
const STALL_MS = 1000;
const LOOK_MS = 10;
/** Characters of a line that a search gives. */
const MAX_FOUND = 500;

/** What else takes every byte: a log, a recording. */
export interface ConsoleTap {
  bytes(bytes: Uint8Array): void;
  /** So many bytes found no room in the engine's own ring. */
  lost?(count: number): void;
  /** What the driver typed. */
  input?(bytes: Uint8Array): void;
  resized?(rows: number, columns: number): void;
  close?(): void;
}

export interface HubOptions {
  readonly scrollback?: number;
  readonly taps?: readonly ConsoleTap[];
  /** The driver's terminal has another size: the guest is to know. */
  readonly onResize?: (rows: number, columns: number) => void;
  /** Told who came, who drives now and who left, in words. */
  readonly onViewers?: (text: string) => void;
}

export class ConsoleHub {
  readonly name: string;
  readonly #source: ConsoleStream;
  readonly #kept: Scrollback;
  readonly #screen: Screen;
  readonly #taps: Set<ConsoleTap>;
  readonly #viewers = new Set<HubViewer>();
  readonly #onResize: HubOptions['onResize'];
  readonly #onViewers: HubOptions['onViewers'];
  #driver: HubViewer | undefined;
  #lost = 0;
  /** Answers of the hub's own terminal that the guest has not taken. */
  #answers = Buffer.alloc(0);
  /** Why nothing comes any more. */
  #over: string | undefined;
  /** Name of the pseudo-terminal, where there is one. */
  pty: string | undefined;

  constructor(source: ConsoleStream, options: HubOptions = {}) {
    const { scrollback = SCROLLBACK_BYTES, taps = [], onResize, onViewers } = options;
    this.name = source.name;
    this.#source = source;
    this.#kept = new Scrollback(scrollback);
    this.#screen = new Screen(this.#kept);
    this.#taps = new Set(taps);
    this.#onResize = onResize;
    this.#onViewers = onViewers;
    this.#screen.onAnswer = (bytes) => this.#answer(bytes);
    source.onLost = (count) => {
      this.#lost += count;
      for (const tap of this.#taps) tap.lost?.(count);
      for (const viewer of this.#viewers) viewer.onLost?.(count);
    };
    source.onWritable = () => {
      this.#answer(Buffer.alloc(0));
      this.#driver?.onWritable?.();
    };
    source.onData = (bytes) => this.#take(bytes);
  }

  #take(bytes: Uint8Array): void {
    this.#kept.append(bytes);
    for (const tap of this.#taps) tap.bytes(bytes);
    this.#screen.feed();
    for (const viewer of this.#viewers) viewer.pump();
  }

  /** The guest's questions are answered once: by the driver's real terminal, else by ours. Nobody else is heard. */
  #answer(bytes: Buffer): void {
    if (this.#driver?.answers) {
      this.#answers = Buffer.alloc(0);
      return;
    }
    // A guest that does not read must not make us keep its questions' answers for ever.
    if (this.#answers.length < 4096) this.#answers = Buffer.concat([this.#answers, bytes]);
    if (this.#answers.length > 0) this.#answers = this.#answers.subarray(this.#source.write(this.#answers));
  }

  /** Bytes of output so far. */
  get bytes(): number {
    return this.#kept.end;
  }

  get screenText(): string {
    return this.#screen.text;
  }

  /** Calls back when all output so far is on the screen. */
  drawn(): Promise<void> {
    return new Promise((resolve) => {
      const look = () => this.#screen.draw(0, (_, upTo) => (upTo >= this.#kept.end ? resolve() : setImmediate(look)));
      look();
    });
  }

  tap(tap: ConsoleTap): () => void {
    this.#taps.add(tap);
    return () => this.#taps.delete(tap);
  }

  open(options: OpenConsole): SharedConsole {
    const viewer = new HubViewer(this, options, this.#kept.end);
    this.#viewers.add(viewer);
    this.#onViewers?.(`${viewer.label} came`);
    if (options.role === 'takeover' || (options.role === 'driver' && !this.#driver)) this.drive(viewer);
    if (options.replay) this.redraw(viewer);
    if (this.#over !== undefined) void this.finish(this.#over);
    return viewer;
  }

  /** Lines of what is kept in which a text is, the newest last. @param most lines that are given. */
  search(text: string, most = 100): string[] {
    const wanted = text.toLowerCase();
    const lines = new StringDecoder('utf8').write(this.#kept.all()).split(/\r?\n/);
    return lines
      .filter((line) => line.toLowerCase().includes(wanted))
      .slice(-most)
      .map((line) => line.slice(0, MAX_FOUND));
  }

  report(): ConsoleReport {
    return {
      name: this.name,
      bytes: this.#kept.end,
      lost: this.#lost,
      driver: this.#driver?.label,
      viewers: [...this.#viewers].filter((viewer) => viewer !== this.#driver).map(({ label }) => label),
      rows: this.#screen.rows,
      columns: this.#screen.columns,
      ...(this.pty !== undefined && { pty: this.pty }),
    };
  }

  /** Takes no more from the guest, and lets go of the viewers once they have seen all, or do not take it in time. */
  async finish(why: string): Promise<void> {
    this.#end(why);
    const latest = performance.now() + LAST_MS;
    let before = Number.POSITIVE_INFINITY;
    let took = 0;
    for (;;) {
      const now = performance.now();
      const unseen = [...this.#viewers].reduce((sum, viewer) => sum + viewer.unseen, 0);
      if (unseen !== before) took = now;
      before = unseen;
      if (unseen === 0 || now > latest || now - took > STALL_MS) break;
      await sleep(LOOK_MS);
    }
    this.#letGo(why);
  }

  close(why = 'The machine has ended.'): void {
    this.#end(why);
    this.#letGo(why);
    this.#screen.close();
  }

  #end(why: string): void {
    if (this.#over !== undefined) return;
    this.#over = why;
    this.#source.onData = undefined;
    this.#source.onWritable = undefined;
    this.#source.onLost = undefined;
    for (const tap of this.#taps) tap.close?.();
  }

  #letGo(why: string): void {
    this.#driver = undefined;
    const viewers = [...this.#viewers];
    this.#viewers.clear();
    for (const viewer of viewers) viewer.end(why);
  }

  // --- for the viewers ------------------------------------------------------------------------------------

  get kept(): Scrollback {
    return this.#kept;
  }

  isDriver(viewer: HubViewer): boolean {
    return this.#driver === viewer;
  }

  drive(viewer: HubViewer): void {
    const before = this.#driver;
    if (before === viewer) return;
    this.#driver = viewer;
    before?.onRole?.('viewer', `${viewer.label} has taken the console over.`);
    // What it had waiting goes nowhere now.
    before?.onWritable?.();
    this.#onViewers?.(`${viewer.label} ${before ? `took it over from ${before.label}` : 'drives'}`);
    viewer.onRole?.('driver', before ? `The console was ${before.label}'s.` : 'Nobody drove the console.');
    viewer.sendSize();
  }

  write(bytes: Uint8Array): number {
    const taken = this.#source.write(bytes);
    if (taken > 0) for (const tap of this.#taps) tap.input?.(bytes.subarray(0, taken));
    return taken;
  }

  resize(rows: number, columns: number): void {
    if (rows === this.#screen.rows && columns === this.#screen.columns) return;
    this.#screen.resize(rows, columns);
    for (const tap of this.#taps) tap.resized?.(rows, columns);
    this.#onResize?.(rows, columns);
  }

  /** Gives a viewer the screen; its bytes go on from there. */
  redraw(viewer: HubViewer): void {
    viewer.waitForScreen();
    this.#screen.draw(viewer.rowsAbove, (screen, upTo) => viewer.screen(screen, upTo));
  }

  remove(viewer: HubViewer): void {
    if (!this.#viewers.delete(viewer)) return;
    this.#onViewers?.(`${viewer.label} left`);
    if (this.#driver !== viewer) return;
    this.#driver = undefined;
    for (const each of this.#viewers) each.onRole?.('viewer', `${viewer.label} has left: nobody drives the console.`);
  }
}

let nextViewer = 1;

class HubViewer implements SharedConsole {
  readonly name: string;
  readonly label: string;
  readonly answers: boolean;
  readonly rowsAbove: number;
  onScreen: ((screen: Uint8Array) => void) | undefined;
  onRole: ((role: ConsoleRole, why: string) => void) | undefined;
  onClosed: ((why: string) => void) | undefined;
  onLost: ((count: number) => void) | undefined;
  onWritable: (() => void) | undefined;
  readonly #hub: ConsoleHub;
  #onData: ((bytes: Uint8Array) => void) | undefined;
  #place: number;
  #size: readonly [rows: number, columns: number] | undefined;
  #waitsForScreen = false;
  /** A screen that came before anybody took it, and the bytes that it stands for where they were missed. */
  #screen: { readonly bytes: Uint8Array; readonly missed: number } | undefined;
  /** The place from which on bytes were missed. */
  #missedFrom: number | undefined;
  #pumping = false;
  #closed = false;

  constructor(hub: ConsoleHub, options: OpenConsole, place: number) {
    this.#hub = hub;
    this.name = hub.name;
    this.label = options.label ?? `viewer ${nextViewer++}`;
    this.answers = options.terminal ?? false;
    this.rowsAbove = options.history ?? 0;
    this.#place = place;
    if (options.rows && options.columns) this.resize(options.rows, options.columns);
  }

  get role(): ConsoleRole {
    return this.#hub.isDriver(this) ? 'driver' : 'viewer';
  }

  get onData(): ((bytes: Uint8Array) => void) | undefined {
    return this.#onData;
  }

  set onData(listener: ((bytes: Uint8Array) => void) | undefined) {
    this.#onData = listener;
    if (listener) queueMicrotask(() => this.pump());
  }

  write(bytes: Uint8Array): number {
    return this.role === 'driver' && !this.#closed ? this.#hub.write(bytes) : bytes.length;
  }

  takeOver(): void {
    if (!this.#closed) this.#hub.drive(this);
  }

  redraw(): void {
    if (!this.#closed) this.#hub.redraw(this);
  }

  resize(rows: number, columns: number): void {
    if (!(rows >= 1 && columns >= 1)) return;
    const side = (value: number) => Math.min(MAX_SIDE, Math.floor(value));
    this.#size = [side(rows), side(columns)];
    if (this.role === 'driver') this.sendSize();
  }

  sendSize(): void {
    if (this.#size) this.#hub.resize(...this.#size);
  }

  waitForScreen(): void {
    this.#waitsForScreen = true;
  }

  screen(screen: Uint8Array, upTo: number): void {
    if (this.#closed) return;
    this.#waitsForScreen = false;
    const missed = this.#missedFrom === undefined ? 0 : upTo - this.#missedFrom;
    this.#missedFrom = undefined;
    this.#place = upTo;
    this.#screen = { bytes: screen, missed: missed + (this.#screen?.missed ?? 0) };
    this.pump();
  }

  /** Gives the viewer what it has not seen, as long as it takes it. */
  pump(): void {
    if (this.#pumping || this.#closed) return;
    this.#pumping = true;
    try {
      while (this.#onData && !this.#waitsForScreen) {
        const { kept } = this.#hub;
        if (this.#place < kept.start) {
          if (this.onScreen) {
            this.#missedFrom = this.#place;
            this.#hub.redraw(this);
            continue;
          }
          // Without someone for a screen, the bytes that are left are all there is.
          this.onLost?.(kept.start - this.#place);
          this.#place = kept.start;
        }
        if (this.#screen) {
          const { bytes, missed } = this.#screen;
          this.#screen = undefined;
          if (missed > 0) this.onLost?.(missed);
          this.onScreen?.(bytes);
          continue;
        }
        const bytes = kept.read(this.#place, PIECE);
        if (bytes.length === 0) return;
        this.#place += bytes.length;
        this.#onData(bytes);
      }
    } finally {
      this.#pumping = false;
    }
  }

  /** Bytes that it has not taken; a screen is one at least. */
  get unseen(): number {
    return this.#lag + (this.#screen || this.#waitsForScreen ? 1 : 0);
  }

  get #lag(): number {
    return this.#hub.kept.end - (this.#missedFrom ?? this.#place) + (this.#screen?.missed ?? 0);
  }

  /** The hub has let go of it. */
  end(why: string): void {
    const lost = this.#lag;
    this.#closed = true;
    if (lost > 0) this.onLost?.(lost);
    this.onClosed?.(why);
    // What it had waiting goes nowhere now.
    this.onWritable?.();
  }

  close(): void {
    if (this.#closed) return;
    this.#hub.remove(this);
    this.#closed = true;
  }

  /** Nothing waits here: what there is no room for is the writer's. */
  async leave(): Promise<number> {
    this.close();
    return 0;
  }
}
