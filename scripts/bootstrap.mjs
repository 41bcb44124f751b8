// What `npm start` and `npm test` run first, with nothing installed but Node 20 or newer and npm: brings the
// packages and the build up to date, then hands over to the project's own Node and its own code. It imports
// nothing but Node's library, and changes nothing when all is there.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
const [task = 'start', ...args] = process.argv.slice(2);
/** The Node 24 of the lockfile, whatever `node` means in the caller's shell. */
const node = join(root, 'node_modules', '.bin', 'node');
const nemu = join(root, 'bin', 'nemu');

if (process.platform !== 'linux') fail('NEMU needs Linux: it drives /dev/kvm.');
if (!['x64', 'arm64'].includes(process.arch)) fail(`NEMU runs on x86-64 and AArch64, not on ${process.arch}.`);

installPackages();
buildWhenStale();
await run();

function fail(message) {
  console.error(`nemu: ${message}`);
  process.exit(1);
}

function step(command, commandArgs, what) {
  console.error(`nemu: ${what}`);
  // Our own standard output is the task's: a set-up step must not write there.
  const { status, error } = spawnSync(command, commandArgs, { cwd: root, stdio: ['ignore', 2, 2] });
  if (error) fail(`${command} could not be started: ${error.message}`);
  if (status !== 0) fail(`"${command} ${commandArgs.join(' ')}" failed with status ${status}; its output is above.`);
}

function installPackages() {
  const stamp = join(root, 'node_modules', '.nemu-lock');
  const lock = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex');
  if (existsSync(stamp) && existsSync(node) && readFileSync(stamp, 'utf8') === lock) return;
  step(
    'npm',
    ['ci', '--no-audit', '--no-fund', '--loglevel=error'],
    'installing the npm packages of package-lock.json',
  );
  if (!existsSync(node)) {
    fail('npm left out the optional package that brings Node 24. Run "npm ci --include=optional" and try again.');
  }
  writeFileSync(stamp, lock);
}

function newest(folder) {
  let time = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    time = Math.max(time, entry.isDirectory() ? newest(path) : statSync(path).mtimeMs);
  }
  return time;
}

function buildWhenStale() {
  const built = join(root, 'dist', '.built');
  const sources = Math.max(
    newest(join(root, 'src')),
    statSync(join(root, 'scripts', 'build.mjs')).mtimeMs,
    statSync(join(root, 'package-lock.json')).mtimeMs,
  );
  if (existsSync(built) && statSync(built).mtimeMs > sources) return;
  step(node, [join(root, 'scripts', 'build.mjs')], 'building');
}

/** Runs a program in the foreground and takes its exit status over; signals reach it through the terminal or us. */
function exec(command, commandArgs, environment = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, commandArgs, {
      cwd: task === 'nemu' ? process.env.INIT_CWD : root,
      stdio: 'inherit',
      env: { ...process.env, ...environment },
    });
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
      process.on(signal, () => {
        // The terminal sends Ctrl-C to the whole group already.
        if (signal !== 'SIGINT') child.kill(signal);
      });
    }
    child.on('error', (error) => fail(`${command} could not be started: ${error.message}`));
    child.on('exit', (status, signal) => resolve(status ?? 128 + (signal ? constants.signals[signal] : 0)));
  });
}

async function run() {
  const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs');
  const tasks = {
    start: [
      [nemu, ['setup', 'start']],
      [nemu, ['start', ...args]],
    ],
    test: [
      [nemu, ['setup', 'test']],
      [node, [vitest, 'run', ...args]],
    ],
    'test:long': [
      [nemu, ['setup', 'test']],
      [node, [vitest, 'run', ...args], { NEMU_TEST_LONG: '1' }],
      // What runs on this machine's KVM, if it has one, once more where others run it.
      ...(args.length > 0 ? [] : [[node, [vitest, 'run', 'test/micro', 'test/unit/boot'], { NEMU_TEST_ON: 'lab' }]]),
    ],
    bench: [
      [nemu, ['setup', 'test']],
      [node, [join(root, 'bench', 'main.ts'), ...args]],
    ],
    nemu: [[nemu, args]],
  };
  const commands = tasks[task];
  if (!commands) fail(`There is no task "${task}"; there are ${Object.keys(tasks).join(', ')}.`);
  for (const [command, commandArgs, environment] of commands) {
    const status = await exec(command, commandArgs, environment);
    if (status !== 0) process.exit(status);
  }
}
