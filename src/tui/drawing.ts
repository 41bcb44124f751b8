/** Frames a second at most; a frame that takes long makes those after it rarer. */
export const MAX_FPS = 30;
/** Share of the time that drawing may take while a guest prints without end. */
const DRAW_SHARE = 0.3;

/** Frames when something changed, no more often than the terminal and this process can take. */
export class Drawing {
  #version = 0;
  #listeners = new Set<() => void>();
  #timer: NodeJS.Timeout | undefined;
  #last = 0;
  #cost = 0;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  readonly get = (): number => this.#version;

  took(ms: number): void {
    this.#cost = this.#cost * 0.7 + ms * 0.3;
  }

  /** A key was pressed: what it shows is not to wait for what a guest prints. */
  hurry(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#request(1000 / MAX_FPS);
  }

  request(): void {
    if (!this.#timer) this.#request(Math.max(1000 / MAX_FPS, this.#cost / DRAW_SHARE));
  }

  #request(gap: number): void {
    const wait = Math.max(0, this.#last + gap - performance.now());
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#last = performance.now();
      this.#version++;
      for (const listener of this.#listeners) listener();
    }, wait);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#listeners.clear();
  }
}
