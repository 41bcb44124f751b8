import type { FetchProgress } from '../lab/guest.ts';
import type { LabProgress } from '../lab/lab_image.ts';

interface EventSink {
  readonly active: boolean;
  write(event: object): void;
}

const BAR_CELLS = 24;
const CLEAR_LINE = '\r\x1b[K';

/** A progress line on standard error: a bar in a terminal, a line a step elsewhere. */
export class ProgressLine {
  #last = '';
  #shown = 0;
  readonly terminal: boolean = Boolean(process.stderr.isTTY && !process.env.CI);

  /** @param fraction of the step, 0 to 1, when it can be told. */
  show(text: string, fraction?: number): void {
    if (!this.terminal) {
      if (text !== this.#last) process.stderr.write(`nemu: ${text}\n`);
      this.#last = text;
      return;
    }
    const now = performance.now();
    if (text === this.#last && now - this.#shown < 50 && fraction !== 1) return;
    this.#last = text;
    this.#shown = now;
    const filled = Math.round((fraction ?? 0) * BAR_CELLS);
    const bar =
      fraction === undefined
        ? ''
        : `${'█'.repeat(filled)}${'░'.repeat(BAR_CELLS - filled)} ${String(Math.floor(fraction * 100)).padStart(3)} % `;
    process.stderr.write(`${CLEAR_LINE}${bar}${text}`.slice(0, (process.stderr.columns ?? 80) + CLEAR_LINE.length - 1));
  }

  done(): void {
    if (this.terminal && this.#last) process.stderr.write(CLEAR_LINE);
    this.#last = '';
  }
}

const MB = 1e6;

export function fetchProgress(line: ProgressLine): (progress: FetchProgress) => void {
  return ({ step, name, bytes, total }) => {
    if (step === 'download') {
      line.show(
        line.terminal
          ? `fetching ${name} (${(bytes / MB).toFixed(1)} of ${(total / MB).toFixed(1)} MB)`
          : `fetching ${name}`,
        total > 0 ? bytes / total : undefined,
      );
    } else line.show(step === 'lists' ? 'updating the package lists' : `unpacking ${name}`);
  };
}

/** Progress of building a lab, which is once a version; `done` takes the line away. */
export function labProgress(events?: EventSink): { report: LabProgress; done: () => void } {
  const line = new ProgressLine();
  return {
    report: (text, done, total) => {
      events?.write({ type: 'lab', text, done, total });
      if (!events?.active) line.show(`preparing the lab (once): ${text}`, done / total);
    },
    done: () => line.done(),
  };
}
