/** `nemu exec`: a command in the guest of a machine in the background, by the guest's agent. */
import { NemuError } from '../../client/errors.ts';
import type { AttachedMachine } from './connection.ts';

/** How long a guest that comes up may take. */
const READY_MS = 60_000;
const INTERRUPTED = 130;

/** Words as a POSIX shell reads them. */
const quoted = (words: readonly string[]): string =>
  words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(' ');

/**
 * Runs a command with this process's standard streams.
 * @param command one word is a line of shell, as with `nemu run`.
 * @returns its exit status.
 * @throws NemuError NO_AGENT
 */
export async function runExec({ share, name }: AttachedMachine, command: readonly string[]): Promise<number> {
  const { guest } = share;
  if (!guest) {
    throw new NemuError('NO_AGENT', `The guest of ${name} has no agent that could run a command.`, {
      hint: 'Guests that NEMU boots with its own initramfs have one; type on the console of others.',
    });
  }
  let timer: NodeJS.Timeout | undefined;
  await Promise.race([
    guest.ready,
    new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new NemuError('NO_AGENT', `The guest of ${name} has not come up within ${READY_MS / 1000} s.`)),
        READY_MS,
      );
    }),
  ]).finally(() => clearTimeout(timer));
  const stop = new AbortController();
  const interrupt = () => stop.abort();
  process.once('SIGINT', interrupt);
  process.once('SIGTERM', interrupt);
  // A reader that is gone (`| head`) ends it, as by SIGPIPE.
  process.stdout.on('error', interrupt);
  const script = command.length === 1 ? command[0] : quoted(command);
  const status = await guest.exec(script, {
    // A terminal would have to be left in a state that the command knows nothing of.
    ...(!process.stdin.isTTY && { input: process.stdin as AsyncIterable<Uint8Array> }),
    onOutput: (bytes) => void process.stdout.write(bytes),
    onError: (bytes) => void process.stderr.write(bytes),
    signal: stop.signal,
  });
  process.stdin.destroy();
  return stop.signal.aborted ? INTERRUPTED : status;
}
