/** Upper ends of a histogram's buckets in microseconds; what takes longer is in one more. */
export const LATENCY_BUCKETS = [
  10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 50_000, 100_000, 1_000_000,
] as const;

export const newHistogram = (): number[] => LATENCY_BUCKETS.map(() => 0).concat(0);

/** The bucket of a time in microseconds. */
export function latencyBucket(us: number): number {
  let bucket = 0;
  while (bucket < LATENCY_BUCKETS.length && us > LATENCY_BUCKETS[bucket]) bucket++;
  return bucket;
}
