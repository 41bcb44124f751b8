/** `nemu stop`, `kill` and `rm`: how a machine in the background ends. */
import { setTimeout as sleep } from 'node:timers/promises';
import { NemuError } from '../../client/errors.ts';
import { parseDuration } from '../../client/options.ts';
import { EXIT } from '../exit_codes.ts';
import { type AttachedMachine, attachMachine } from './connection.ts';
import { cleanStale, isClaimed } from './name_lock.ts';
import {
  findMachine,
  forgetMachine,
  isUp,
  listMachines,
  machineNamed,
  runningMachine,
  writeRecord,
} from './records.ts';

/** Systems with an init of their own are asked to end in their own way. */
const POWER_OFF = 'if [ -d /run/systemd/system ]; then systemctl poweroff; else sync; poweroff -f; fi';
const LOOK_MS = 50;
/** How long an engine may take to let everything go once its machine has been closed, and a killed one to be gone. */
const CLOSE_MS = 10_000;
const GONE_MS = 5000;

/** Waits until a machine's process has let go of its name. @returns whether it has. */
async function untilGone(name: string, ms: number): Promise<boolean> {
  const deadline = performance.now() + ms;
  while (isClaimed(name)) {
    if (performance.now() > deadline) return false;
    await sleep(LOOK_MS);
  }
  return true;
}

/** Names, or all that there are of a kind. @throws NemuError USAGE */
function chosen(names: readonly string[], all: boolean | undefined, which: () => string[]): readonly string[] {
  if (all) return which();
  if (names.length > 0) return names;
  throw new NemuError('USAGE', 'Which machine?', { hint: 'Name one or several, or say --all.' });
}

/** Each in turn; what goes wrong with one does not keep the others. */
async function each(names: readonly string[], action: (name: string) => Promise<void>): Promise<number> {
  let status: number = EXIT.OK;
  for (const name of names) {
    try {
      await action(name);
      process.stdout.write(`${name}\n`);
    } catch (error) {
      if (!(error instanceof NemuError)) throw error;
      process.stderr.write(`nemu: ${error.text}\n`);
      status = EXIT.HOST;
    }
  }
  return status;
}

const running = () =>
  listMachines()
    .filter(isUp)
    .map(({ name }) => name);

export interface StopOptions {
  readonly all?: boolean;
  readonly timeout: string;
  /** Does not take no for an answer. */
  readonly kill?: boolean;
}

export function stop(names: readonly string[], options: StopOptions): Promise<number> {
  const limit = parseDuration(options.timeout);
  return each(chosen(names, options.all, running), async (name) => {
    const attached = await attachMachine(name);
    try {
      if (await endsWithin(attached, limit)) return;
    } finally {
      attached.close();
    }
    if (options.kill) {
      await killOne(name);
      return;
    }
    throw new NemuError('GUEST_TIMEOUT', `The guest of ${name} has not powered off within ${options.timeout}.`, {
      hint: `nemu kill ${name} ends it at once; what it has not written is lost.`,
    });
  });
}

/** @returns whether the machine has ended. Who looks at one in the workstation may go on to, and keeps its name. */
async function endsWithin(attached: AttachedMachine, limit: number): Promise<boolean> {
  const { machine, name } = attached;
  const isOver = () => machine.state === 'ended' || machine.state === 'closed';
  if (!isOver()) await askToEnd(attached);
  const deadline = performance.now() + limit;
  while (!isOver() && isClaimed(name)) {
    if (performance.now() > deadline) return false;
    await sleep(LOOK_MS);
  }
  if (!(await untilGone(name, GONE_MS))) {
    process.stderr.write(`nemu: ${name} has ended. Its name is free when the workstation that shows it is left.\n`);
  }
  return true;
}

/** By its agent where it has one, else by the power button. */
async function askToEnd({ machine, share }: AttachedMachine): Promise<void> {
  if (machine.state === 'paused') await machine.resume();
  const ready = share.guest?.phases.some(({ name }) => name === 'ready' || name === 'agent');
  // Its end is no answer of the agent's.
  if (share.guest && ready) void share.guest.run(POWER_OFF).catch(() => {});
  else await machine.powerButton();
}

export function kill(names: readonly string[], { all }: { readonly all?: boolean }): Promise<number> {
  return each(chosen(names, all, running), killOne);
}

async function killOne(name: string): Promise<void> {
  const known = runningMachine(name);
  let pid: number | undefined;
  try {
    const attached = await attachMachine(name);
    ({ pid } = attached);
    await attached.machine.close().catch(() => {});
    attached.close();
    if (await untilGone(name, CLOSE_MS)) return;
  } catch (error) {
    // One that does not answer has a process all the same.
    if (!(error instanceof NemuError)) throw error;
    if (!isClaimed(name)) return;
    pid ??= known.record.pid;
  }
  process.kill(pid, 'SIGKILL');
  if (!(await untilGone(name, GONE_MS))) {
    throw new NemuError('ENGINE', `The engine of ${name} (process ${pid}) does not end.`);
  }
  cleanStale(name);
  const { record } = findMachine(name) ?? known;
  const end = { at: new Date().toISOString(), reason: 'quit', detail: 'Its engine was killed.', status: EXIT.CRASH };
  writeRecord({ ...record, end });
}

export interface RemoveOptions {
  readonly all?: boolean;
  readonly force?: boolean;
}

export function remove(names: readonly string[], { all, force }: RemoveOptions): Promise<number> {
  const gone = () =>
    listMachines()
      .filter((known) => force || !isUp(known))
      .map(({ name }) => name);
  return each(chosen(names, all, gone), async (name) => {
    const known = machineNamed(name);
    if (isUp(known)) {
      if (!force) {
        throw new NemuError('MACHINE', `The machine ${name} runs.`, {
          hint: `nemu stop ${name} first, or nemu rm --force ${name}.`,
        });
      }
      await killOne(name);
    }
    forgetMachine(name);
  });
}
