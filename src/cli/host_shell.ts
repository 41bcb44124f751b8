/** A shell or another program of the host in a terminal of the workstation. */
import { spawn } from 'node:child_process';
import { dirname } from 'node:path';
import { close, O_RDWR, open } from '../ffi/libc.ts';
import { O_NOCTTY, PseudoTerminal } from '../ffi/pty.ts';
import type { HostProgram } from '../tui/workstation.tsx';
import { ptyEnd } from './machines/background.ts';
import { environment } from './own_command.ts';
import { supervisorPath } from './paths.ts';

/** A terminal whose program does not read is tried again so much later. */
const RETRY_MS = 10;

/** Starts the user's shell, for which `nemu` is this one. @throws SystemError without a pseudo-terminal. */
export const openHostShell = (rows: number, columns: number): HostProgram =>
  openHostProgram([process.env.SHELL || '/bin/sh'], rows, columns);

/** What gdb has said last would go with its terminal. */
const KEEP = 'nemu gdb "$0" || { printf "\\n[nemu] Enter closes this."; read -r _; }';

/** gdb on a machine, by its name. */
export const openGdb =
  (name: string) =>
  (rows: number, columns: number): HostProgram =>
    openHostProgram(['/bin/sh', '-c', KEEP, name], rows, columns);

function openHostProgram(command: readonly string[], rows: number, columns: number): HostProgram {
  const terminal = new PseudoTerminal({ raw: false });
  terminal.resize(rows, columns);
  const device = open(terminal.path, O_RDWR | O_NOCTTY);
  // It makes the terminal the program's own, so that Ctrl-C and job control work.
  const child = spawn('setsid', ['-c', ...command], {
    stdio: [device, device, device],
    env: { ...environment(), TERM: 'xterm-256color', PATH: `${dirname(supervisorPath())}:${process.env.PATH ?? ''}` },
  });
  close(device);
  const unsent: Uint8Array[] = [];
  let timer: NodeJS.Timeout | undefined;
  let ended = false;
  const flush = () => {
    timer = undefined;
    while (!ended && unsent.length > 0) {
      const [first] = unsent;
      const taken = terminal.write(first);
      if (taken === first.length) unsent.shift();
      else {
        unsent[0] = first.subarray(taken);
        timer = setTimeout(flush, RETRY_MS);
        return;
      }
    }
  };
  const program: HostProgram = {
    onData: () => {},
    onEnd: () => {},
    send: (bytes) => {
      unsent.push(bytes);
      if (!timer) flush();
    },
    resize: (height, width) => !ended && terminal.resize(height, width),
    close: () => end('It was closed.'),
  };
  const end = (why: string) => {
    if (ended) return;
    ended = true;
    clearTimeout(timer);
    listening.close();
    // Whoever is still in it gets SIGHUP.
    terminal.close();
    program.onEnd(why);
  };
  const listening = ptyEnd(terminal).listen(
    (bytes) => program.onData(bytes),
    () => end('It has ended.'),
  );
  child.once('error', (error) => end(error.message));
  return program;
}
