/**
 * The workstation in a terminal of its own, on a scripted machine (test/support/workstation_program.ts): what it takes
 * when nothing happens, and how soon a key shows when the guest prints as fast as it can.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import xterm from '@xterm/headless';
import { bundleProgram } from '../test/support/program.ts';
import { hostTime } from './cpu_time.ts';
import { type Figure, median } from './figures.ts';

const [COLUMNS, ROWS] = [120, 40];
const PROGRAM = join(import.meta.dirname, '..', 'test', 'support', 'workstation_program.ts');
/** Bytes a second: what `yes` prints on a fast console. */
const FLOOD = 10_000_000;
const KEYS = 30;
const SETTLE_MS = 15_000;
const WINDOW_MS = 20_000;
const LIMIT_MS = 20_000;
/** A synchronised update, which every frame is. */
const FRAME = '\x1b[?2026h';
const HELP = 'type to narrow';

/** script(1) has the terminal; what is typed goes in, and what is drawn is drawn by a terminal emulator. */
class Screen {
  readonly child: ChildProcess;
  readonly #terminal = new xterm.Terminal({ cols: COLUMNS, rows: ROWS, allowProposedApi: true });
  #frames = 0;
  #drawn = () => {};

  constructor(program: string, options: readonly string[]) {
    const command = `stty rows ${ROWS} cols ${COLUMNS}; exec ${[process.execPath, program, ...options].join(' ')}`;
    this.child = spawn('script', ['-qefc', command, '/dev/null'], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, TERM: 'xterm-256color', LC_ALL: 'C.UTF-8' },
    });
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#frames += text.split(FRAME).length - 1;
      this.#terminal.write(text, () => this.#drawn());
    });
  }

  type(keys: string): void {
    this.child.stdin?.write(keys);
  }

  /** @returns the frames since it was last asked. */
  frames(): number {
    const frames = this.#frames;
    this.#frames = 0;
    return frames;
  }

  #shows(text: string): boolean {
    const buffer = this.#terminal.buffer.active;
    for (let row = 0; row < ROWS; row++) {
      if (
        buffer
          .getLine(buffer.baseY + row)
          ?.translateToString()
          .includes(text)
      )
        return true;
    }
    return false;
  }

  /** Until a text is on the screen, or no longer there. */
  async until(text: string, there = true): Promise<void> {
    const limit = AbortSignal.timeout(LIMIT_MS);
    while (this.#shows(text) !== there) {
      if (limit.aborted) throw new Error(`"${text}" ${there ? 'did not appear' : 'stayed'} on the screen.`);
      await new Promise<void>((resolve) => {
        this.#drawn = resolve;
        limit.addEventListener('abort', () => resolve(), { once: true });
      });
    }
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.child.once('exit', resolve));
    this.child.kill('SIGTERM');
    await ended;
  }
}

/** Milliseconds from each key to what it shows, percent of a processor, and frames a second. */
async function measured(program: string, options: readonly string[]) {
  const screen = new Screen(program, options);
  try {
    await screen.until('exits/s');
    // Its code is warm, its first pictures are drawn, and nobody has pressed a key for a while.
    await sleep(SETTLE_MS);
    const pid = screen.child.pid as number;
    screen.frames();
    const [at, used] = [performance.now(), hostTime(pid)];
    await sleep(WINDOW_MS);
    const seconds = (performance.now() - at) / 1000;
    const processor = (hostTime(pid) - used) / 1e9 / seconds;
    const frames = screen.frames() / seconds;
    const keys: number[] = [];
    for (let key = 0; key < KEYS; key++) {
      const pressed = performance.now();
      screen.type('?');
      await screen.until(HELP);
      keys.push(performance.now() - pressed);
      screen.type('\x1b');
      await screen.until(HELP, false);
      await sleep(100);
    }
    return { processor: processor * 100, frames, keys };
  } finally {
    await screen.close();
  }
}

export async function workstationFigures(folder: string): Promise<Figure[]> {
  const program = await bundleProgram(PROGRAM, folder);
  const figures: Figure[] = [];
  for (const [what, options] of [
    ['nothing happens', ['--live', '--idle']],
    ['the guest prints 10 MB/s', ['--live', '--flood', String(FLOOD)]],
  ] as const) {
    const { processor, frames, keys } = await measured(program, options);
    const figure = (name: string, unit: string, nemu: number) =>
      figures.push({ suite: 'workstation', what: `${what}: ${name}`, unit, nemu, qemu: {} });
    figure('of one processor', '%', processor);
    figure('frames', '1/s', frames);
    figure('key to picture', 'ms', median(keys));
    figure('key to picture, the worst of 30', 'ms', Math.max(...keys));
  }
  return figures;
}
