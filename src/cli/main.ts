import { writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { CommanderError } from 'commander';
import { NemuError } from '../client/errors.ts';
import { setParentDeathSignal } from '../ffi/libc.ts';
import { EXIT } from './exit_codes.ts';
import { program } from './program.ts';

/** Above this a shell's status of a command is that of one killed by a signal. */
const SIGNALLED = 128;

// From here on Ctrl-C is ours; before, the supervisor sees to it.
const { NEMU_RUN_DIR: run, NEMU_SUPERVISOR: supervisor } = process.env;
if (run && supervisor === String(process.ppid)) {
  try {
    writeFileSync(join(run, 'begun'), '');
  } catch {
    // The supervisor and its folder went meanwhile: it has nobody to tell.
  }
}
// The supervisor is there to tidy up; without it nobody would read our exit status.
if (process.env.NEMU_SUPERVISOR) setParentDeathSignal(constants.signals.SIGTERM);

// A shell has one number for both: a command in the guest that was killed, and this process being killed.
process.on('exit', (code) => {
  const folder = process.env.NEMU_RUN_DIR;
  if (folder && code > SIGNALLED) writeFileSync(join(folder, 'own-status'), '');
});

/** Errors that are the caller's: wrong words on the command line, a description that is not valid. */
const USAGE_CODES = new Set(['USAGE', 'DESCRIPTION', 'SIZE_FORMAT']);

function statusOf({ code }: NemuError): number {
  if (USAGE_CODES.has(code)) return EXIT.USAGE;
  return code === 'INTERRUPTED' ? EXIT.INTERRUPTED : EXIT.HOST;
}

try {
  await program().parseAsync(process.argv);
} catch (error) {
  if (error instanceof CommanderError) {
    // commander has said what is wrong; help and version are no errors.
    process.exitCode = error.exitCode === 0 ? EXIT.OK : EXIT.USAGE;
  } else if (error instanceof NemuError) {
    process.stderr.write(`nemu: ${error.text}\n`);
    process.exitCode = statusOf(error);
  } else {
    process.stderr.write(`nemu: this is a fault in NEMU itself: ${(error as Error).stack ?? error}\n`);
    process.exitCode = EXIT.HOST;
  }
}
// Standard input may still be open, in raw or in cooked mode: nothing waits for it any more.
process.stdin.unref?.();
