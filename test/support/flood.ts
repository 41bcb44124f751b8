/** A guest that prints without end, as `yes` does. */
const EVERY_MS = 5;

export class Flood {
  readonly #timer: NodeJS.Timeout;

  /** @param rate bytes a second. */
  constructor(console: { print(text: string): void }, rate: number) {
    const started = performance.now();
    let printed = 0;
    this.#timer = setInterval(() => {
      const due = Math.floor(((performance.now() - started) / 1000) * rate) - printed;
      printed += due;
      console.print('y\r\n'.repeat(Math.ceil(due / 3)));
    }, EVERY_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}
