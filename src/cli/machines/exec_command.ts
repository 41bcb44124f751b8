/** `nemu exec`: a command in the guest of a machine in the background, by the guest's agent. */
import type { Writable } from 'node:stream';
import type { ReadStream } from 'node:tty';
import { NemuError } from '../../client/errors.ts';
import type { GuestChannel } from '../../client/guest_session.ts';
import type { TerminalSize } from '../../client/guest_terminal.ts';
import type { OutputListener } from '../../client/output_pace.ts';
import { sizeOf } from '../../client/shared_console.ts';
import { GuestModes } from '../../console/terminal_modes.ts';
import { parsePrefix, prefixName } from '../console_session.ts';
import { EXIT } from '../exit_codes.ts';
import type { AttachedMachine } from './connection.ts';

export interface ExecOptions {
  /** The command gets a terminal; without a command there is one anyway. */
  readonly terminal?: boolean;
  /** Key that hangs up, or "none". */
  readonly escape: string;
}

/** How long a guest that comes up may take. */
const READY_MS = 60_000;
const HUNG_UP = 129;
/** The shell that people know of a system, and of ours the one with its prompt. */
const SHELL =
  '[ -e /nemu/shellrc ] && export ENV=/nemu/shellrc; command -v bash >/dev/null && exec bash -il; exec sh -i';

/** Words as a POSIX shell reads them. */
const quoted = (words: readonly string[]): string =>
  words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(' ');

/**
 * Runs a command with this process's standard streams, or in a terminal of its own that this one shows.
 * @param command one word is a line of shell, as with `nemu run`; none is a shell to type into.
 * @returns its exit status.
 * @throws NemuError NO_AGENT, USAGE for a terminal that is none.
 */
export async function runExec(attached: AttachedMachine, command: readonly string[], options: ExecOptions) {
  const terminal = options.terminal || command.length === 0;
  const leave = options.escape === 'none' ? undefined : parsePrefix(options.escape);
  if (terminal && !(process.stdin.isTTY && process.stdout.isTTY)) {
    throw new NemuError('USAGE', 'A terminal in the guest needs one here: standard input and output are none.', {
      hint: `Without one: nemu exec ${attached.name} -- COMMAND`,
    });
  }
  if (options.escape !== 'none' && leave === undefined) {
    throw new NemuError('USAGE', `--escape ${options.escape} is not a control key.`, { hint: 'Such as ^], or none.' });
  }
  const guest = await readyGuest(attached);
  const script = command.length === 1 ? command[0] : quoted(command);
  return terminal ? inTerminal(attached, guest, script || SHELL, leave) : withStreams(guest, script);
}

async function readyGuest({ share: { guest }, name }: AttachedMachine): Promise<GuestChannel> {
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
  return guest;
}

/** Output to a stream of ours. The guest's command waits while its reader takes none. */
export function printTo(stream: Writable): OutputListener {
  let room: Promise<void> | undefined;
  return (bytes) => {
    if (stream.write(bytes)) return;
    room ??= new Promise((resolve) => {
      stream.once('drain', () => {
        room = undefined;
        resolve();
      });
    });
    return room;
  };
}

async function withStreams(guest: GuestChannel, script: string): Promise<number> {
  const stop = new AbortController();
  const interrupt = () => stop.abort();
  process.once('SIGINT', interrupt);
  process.once('SIGTERM', interrupt);
  // A reader that is gone (`| head`) ends it, as by SIGPIPE.
  process.stdout.on('error', interrupt);
  const status = await guest.exec(script, {
    // A terminal's bytes would come in lines, echoed here: --terminal is for that.
    ...(!process.stdin.isTTY && { input: process.stdin as AsyncIterable<Uint8Array> }),
    onOutput: printTo(process.stdout),
    onError: printTo(process.stderr),
    signal: stop.signal,
  });
  process.stdin.destroy();
  return stop.signal.aborted ? EXIT.INTERRUPTED : status;
}

/** @param leave byte of the key that hangs up. */
async function inTerminal(
  { name }: AttachedMachine,
  guest: GuestChannel,
  script: string,
  leave: number | undefined,
): Promise<number> {
  const input = process.stdin as ReadStream;
  const { stdout } = process;
  const stop = new AbortController();
  const left = Promise.withResolvers<number>();
  // A guest that hangs would keep the terminal: nobody waits for its answer.
  const hangUp = () => {
    stop.abort();
    left.resolve(HUNG_UP);
  };
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.once(signal, hangUp);
  stdout.on('error', hangUp);
  const size = (): TerminalSize => sizeOf(stdout);
  const typed = async function* (): AsyncGenerator<Uint8Array> {
    for await (const bytes of input as AsyncIterable<Buffer>) {
      const at = leave === undefined ? -1 : bytes.indexOf(leave);
      yield at < 0 ? bytes : bytes.subarray(0, at);
      if (at >= 0) return hangUp();
    }
  };
  const modes = new GuestModes();
  const print = printTo(stdout);
  if (leave !== undefined) process.stderr.write(`\x1b[2m[nemu] ${name}; ${prefixName(leave)} hangs up\x1b[0m\r\n`);
  input.setRawMode(true);
  try {
    const running = guest.exec(`export TERM=${quoted([process.env.TERM || 'linux'])}\n${script}`, {
      input: typed(),
      onOutput: (bytes) => {
        modes.saw(bytes);
        return print(bytes);
      },
      onError: () => {},
      signal: stop.signal,
      terminal: {
        size: size(),
        onResize: (listener) => {
          const resized = () => listener(size());
          stdout.on('resize', resized);
          return () => stdout.off('resize', resized);
        },
      },
    });
    return await Promise.race([running, left.promise]);
  } finally {
    stdout.write(modes.undo());
    input.setRawMode(false);
    input.destroy();
    if (stop.signal.aborted) process.stderr.write(`\r\n[nemu] Hung up.\n`);
  }
}
