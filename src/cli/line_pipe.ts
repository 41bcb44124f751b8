import type { ConsoleStream } from '../client/machine_client.ts';

/** How long a line may wait for its end, and how long it may be. */
const LINE_MS = 20;
const LINE_BYTES = 16384;

/**
 * A console's output to a stream of ours. The guest waits while our reader does: a pipe has no bottom that we could
 * invent. Lines go out whole, where the guest ends them soon, so that standard output and standard error that go to
 * one place do not mix within them.
 * @param arrived told of each piece's bytes.
 * @returns what writes the line that is not whole.
 */
export function pipeLines(
  console: ConsoleStream,
  to: NodeJS.WriteStream,
  arrived: (count: number) => void,
): () => void {
  let rest: Uint8Array = new Uint8Array(0);
  let timer: NodeJS.Timeout | undefined;
  const write = (bytes: Uint8Array) => {
    if (to.write(bytes)) return;
    console.onData = undefined;
    to.once('drain', () => {
      console.onData = take;
    });
  };
  const flush = () => {
    clearTimeout(timer);
    timer = undefined;
    const bytes = rest;
    rest = new Uint8Array(0);
    if (bytes.length > 0) write(bytes);
  };
  const take = (bytes: Uint8Array) => {
    arrived(bytes.length);
    // A person sees each key at once.
    const lines = to.isTTY || bytes.length > LINE_BYTES ? bytes.length : bytes.lastIndexOf(0x0a) + 1;
    const now = lines === 0 && rest.length + bytes.length > LINE_BYTES ? bytes.length : lines;
    const line = bytes.subarray(0, now);
    const later = bytes.slice(now);
    if (now > 0) {
      const whole = rest.length > 0 ? Buffer.concat([rest, line]) : line;
      clearTimeout(timer);
      timer = undefined;
      rest = later;
      write(whole);
    } else rest = Buffer.concat([rest, later]);
    if (rest.length > 0) timer ??= setTimeout(flush, LINE_MS);
  };
  to.on('error', () => {
    // A reader that is gone (`| head`): the rest goes nowhere, as with SIGPIPE.
    console.onData = () => {};
  });
  console.onData = take;
  return flush;
}
