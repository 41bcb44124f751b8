/** Clusters that were given up: how they are released when nobody can be at them any more. */
export interface Released {
  readonly offset: number;
  readonly clusters: number;
  /** Their bytes may be given back to the host's file system. */
  readonly discard: boolean;
}

/**
 * Holds clusters back until every read and write that may have found them in a table has ended: the grace period
 * of read-copy-update, with two generations.
 */
export class Limbo {
  readonly #active = [0, 0];
  #generation = 0;
  #older: Released[] = [];
  #newer: Released[] = [];

  /** A request begins. @returns what `leave` is to be told. */
  enter(): number {
    const generation = this.#generation & 1;
    this.#active[generation]++;
    return generation;
  }

  /** @returns whether clusters may have become free by it. */
  leave(generation: number): boolean {
    return --this.#active[generation] === 0 && this.#older.length + this.#newer.length > 0;
  }

  add(released: readonly Released[]): void {
    this.#newer.push(...released);
  }

  get empty(): boolean {
    return this.#older.length + this.#newer.length === 0;
  }

  /** What nobody is at any more. */
  take(): Released[] {
    const free: Released[] = [];
    // Requests of the generation before this one have ended: what waited for them is free.
    while (this.#active[(this.#generation + 1) & 1] === 0 && !this.empty) {
      free.push(...this.#older);
      this.#older = this.#newer;
      this.#newer = [];
      this.#generation++;
    }
    return free;
  }
}
