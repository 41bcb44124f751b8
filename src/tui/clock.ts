/** Time as the workstation has it. Tests hold it still, so that what is on the screen depends on nothing else. */
export interface StationClock {
  /** Milliseconds since some moment; never goes back. */
  monotonic(): number;
  /** Milliseconds since the epoch. */
  wall(): number;
  /** Calls once, later. @returns what calls it off. */
  after(ms: number, callback: () => void): () => void;
}

export const hostClock: StationClock = {
  monotonic: () => performance.now(),
  wall: () => Date.now(),
  after: (ms, callback) => {
    const timer = setTimeout(callback, ms);
    return () => clearTimeout(timer);
  },
};
