/** What a program and its children take of the processors, as proc(5) says it. */
import { readdirSync, readFileSync } from 'node:fs';

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    // It has ended in the meantime.
    return '';
  }
}

/**
 * Nanoseconds that a process and its children have run on processors, guests' own time left out. Threads that run a
 * guest are known by their guest time, which the kernel counts in ticks: its share is taken off their exact time.
 */
export function hostTime(pid: number): number {
  let total = 0;
  for (const task of folder(`/proc/${pid}/task`)) {
    const path = `/proc/${pid}/task/${task}`;
    const exact = Number(read(`${path}/schedstat`).split(' ')[0]);
    // Fields from `state` (3) on: utime 14, stime 15, guest_time 43.
    const fields = read(`${path}/stat`)
      .replace(/^.*\) /, '')
      .split(' ')
      .map(Number);
    const ticks = fields[14 - 3] + fields[15 - 3];
    const guest = fields[43 - 3];
    if (Number.isFinite(exact) && ticks >= 0) total += ticks > 0 ? exact * (1 - guest / ticks) : exact;
    for (const child of read(`${path}/children`).split(' ').filter(Boolean)) total += hostTime(Number(child));
  }
  return total;
}

function folder(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
