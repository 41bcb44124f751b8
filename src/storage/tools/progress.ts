/** Told of how far a long job is: bytes, of how many. */
export type Progress = (done: number, total: number) => void;

/** Lets signals and timers have their turn in between. */
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
