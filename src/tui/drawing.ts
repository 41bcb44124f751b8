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

  request(): void {
    if (this.#timer) return;
    const gap = Math.max(1000 / MAX_FPS, this.#cost / DRAW_SHARE);
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
