/** The supervisor (bin/nemu) and engines that hear nothing; they are scripts in place of ours. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { nemu } from '../../support/cli.ts';

const DEADLINE = new URL('../../../src/cli/deadline.ts', import.meta.url).href;

const OWN_COMMAND = new URL('../../../src/cli/own_command.ts', import.meta.url).href;

/** Starts the supervisor with such an engine, in a process group of its own. */
function supervise(engine: string) {
  const root = mkdtempSync(join(tmpdir(), 'nemu-supervisor-'));
  const run = join(root, 'run');
  for (const folder of ['bin', 'dist', 'node_modules/.bin', 'run']) mkdirSync(join(root, folder), { recursive: true });
  copyFileSync(nemu, join(root, 'bin/nemu'));
  symlinkSync(process.execPath, join(root, 'node_modules/.bin/node'));
  writeFileSync(join(root, 'package.json'), '{"type":"module"}');
  const begun = "import { writeFileSync } from 'node:fs'; writeFileSync(process.env.NEMU_RUN_DIR + '/begun', '');";
  writeFileSync(join(root, 'dist/nemu.js'), `${begun}\n${engine}`);
  const child = spawn(join(root, 'bin/nemu'), [], {
    ...{ detached: true, stdio: ['ignore', 'pipe', 'pipe'] },
    env: { ...process.env, XDG_RUNTIME_DIR: run },
  });
  let errors = '';
  child.stderr.on('data', (bytes) => {
    errors += bytes;
  });
  onTestFinished(() => {
    try {
      process.kill(-(child.pid as number), 'SIGKILL');
    } catch {
      // It has ended.
    }
    rmSync(root, { recursive: true, force: true });
  });
  const ended = once(child, 'close').then(([status, signal]) => ({ status, signal, errors, left: readdirSync(run) }));
  return { child, ended };
}

test('a loop without end does not outlive its deadline', { timeout: 30_000 }, async () => {
  const { ended } = supervise(
    `const { guardDeadline } = await import('${DEADLINE}'); guardDeadline(-4900, 'It is late.', 71); for (;;);`,
  );
  const { errors, ...end } = await ended;
  expect(end).toEqual({ status: 71, signal: null, left: [] });
  // The shell says "Killed" behind it.
  expect(errors).toMatch(/^nemu: It is late\.\n/);
});

test('a deadline that was called off ends nothing', { timeout: 30_000 }, async () => {
  const { ended } = supervise(
    `const { guardDeadline } = await import('${DEADLINE}'); guardDeadline(-4900, 'It is late.', 71)();
     setTimeout(() => process.exit(3), 300);`,
  );
  expect(await ended).toMatchObject({ status: 3, errors: '' });
});

test('an engine that does not hear Ctrl-C is killed when it comes again and again', { timeout: 30_000 }, async () => {
  const { child, ended } = supervise("process.on('SIGINT', () => {}); console.log('on'); for (;;);");
  await once(child.stdout, 'data');
  for (let time = 1; time <= 5; time++) {
    process.kill(-(child.pid as number), 'SIGINT');
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(child.signalCode === null, `after ${time}`).toBe(time < 5);
  }
  const { signal, errors, left } = await ended;
  expect({ signal, left }).toEqual({ signal: 'SIGINT', left: [] });
  expect(errors).toContain('killed: it did not end when Ctrl-C was pressed before');
});

test('an engine that leaves Ctrl-C to another program is not killed by it', { timeout: 30_000 }, async () => {
  const { child, ended } = supervise(`
    const { leaveInterrupts } = await import('${OWN_COMMAND}');
    process.on('SIGINT', () => {});
    const come = leaveInterrupts();
    setTimeout(() => { come(); process.exit(5); }, 3000);
    console.log('on');`);
  await once(child.stdout, 'data');
  for (let time = 1; time <= 8; time++) {
    process.kill(-(child.pid as number), 'SIGINT');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  expect(await ended).toMatchObject({ status: 5, signal: null, errors: '', left: [] });
});
