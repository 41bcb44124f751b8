/** A script that does not do is told before a guest is booted for it; no machine is made. */
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { EventLog } from '../../../src/cli/event_log.ts';
import { claimName } from '../../../src/cli/machines/name_lock.ts';
import { writeRecord } from '../../../src/cli/machines/records.ts';
import { perform } from '../../../src/cli/repl_run.ts';
import { checkScript, placeInScript } from '../../../src/cli/script_file.ts';
import type { MachineClient } from '../../../src/client/machine_client.ts';
import { Vm } from '../../../src/repl/vm.ts';
import { runNemu } from '../../support/cli.ts';
import { ScriptedMachine } from '../../support/scripted_machine.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'nemu-script-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function script(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

test('what a script did not wait for is waited for, and its failure is the script’s', async () => {
  const others = process.listeners('unhandledRejection');
  process.removeAllListeners('unhandledRejection');
  onTestFinished(() => {
    process.removeAllListeners('unhandledRejection');
    for (const each of others) process.on('unhandledRejection', each);
  });
  const vm = new Vm({ machine: new ScriptedMachine({ busy: false }).client as MachineClient, guest: undefined });
  const run = (name: string, text: string) => perform(vm, { script: script(name, text) }, new EventLog(undefined));
  await expect(run('stray.mjs', "vm.unplug('nosuch'); export {};\n")).rejects.toThrow('nosuch was not unplugged');
  // A script of CommonJS that exports nothing gives nothing.
  const write = vi.spyOn(process.stdout, 'write').mockReturnValue(true);
  expect(await run('nothing.cjs', 'vm.name;\n')).toBe(0);
  expect(write.mock.calls).toEqual([]);
  write.mockRestore();
});

test.each([
  ['typed.ts', 'const a: number = 1;\nexport default async (vm: unknown) => [await a, vm];\n'],
  ['module.js', 'export const a = 1;\nexport default await a;\n'],
  ['common.js', 'if (process.x) return;\nmodule.exports = 1;\n'],
  ['module.mjs', 'export default 1;\n'],
  [
    'imports.ts',
    [
      "import assert from 'node:assert';",
      "import 'node:fs/promises';",
      "import type { T } from './only-types.ts';",
      "import { a } from './module.js';",
      "export { b } from './imports.ts';",
      "const later = () => import('./later.ts');",
    ].join('\n'),
  ],
])('%s is a script', async (name, text) => {
  await checkScript(script(name, text));
});

test.each([
  ['bad.ts', 'const a: number = 1;\nconst b: = 2;\n', /^The script \S+bad\.ts cannot be parsed, line 2: /],
  ['bad.mjs', 'export default 1 +;\n', /bad\.mjs cannot be parsed, line 1: Expression expected\./],
  ['bad.js', 'export default 1 +;\n', /bad\.js cannot be parsed, line 1: /],
])('%s is none, and is shown', async (name, text, message) => {
  const wrong = { code: 'USAGE', message: expect.stringMatching(message), hint: expect.stringMatching(/\n +\^$/) };
  await expect(checkScript(script(name, text))).rejects.toThrow(expect.objectContaining(wrong));
});

test.each([
  ['./nope.ts', /imports\.mjs imports '\.\/nope\.ts', which is not there\.$/, /^It would be \/.*\/nope\.ts\.$/],
  ['node:nope', /imports 'node:nope', which is not there\.$/, /^Node has no such module\.$/],
  ['no-such-package/x', /imports 'no-such-package\/x', which is not there\.$/, /^A file begins with \.\//],
  ['./outer.mjs', /^The script \S+\/outer\.mjs imports '\.\/inner\.mjs', which is not there\.$/, /inner\.mjs\.$/],
])('an import of %s is not there, and is told', async (specifier, message, hint) => {
  script('outer.mjs', "export * from './inner.mjs';\n");
  const path = script('imports.mjs', `import '${specifier}';\n`);
  const wrong = { code: 'USAGE', message: expect.stringMatching(message), hint: expect.stringMatching(hint) };
  await expect(checkScript(path)).rejects.toThrow(expect.objectContaining(wrong));
});

describe('nothing is booted for', () => {
  const env = () => ({ XDG_STATE_HOME: join(folder, 'state'), XDG_RUNTIME_DIR: join(folder, 'run') });
  beforeEach(() => {
    mkdirSync(join(folder, 'run'), { recursive: true });
    Object.assign(process.env, env());
  });

  test.each([
    [['run', '--script', 'none.ts'], 'The script none.ts does not exist.'],
    [['run', '--script', '/'], 'The script / cannot be read: it is a folder.'],
    [['repl', 'none.ts'], 'There is no machine or file "none.ts".'],
    [['repl', '/'], 'The script / cannot be read: it is a folder.'],
    [['repl', 'wrok'], 'Did you mean work?'],
    [['repl', 'work', 'none.ts'], 'The script none.ts does not exist.'],
    [['repl', 'over'], 'The machine over does not run.'],
  ])('nemu %j', async (args, message) => {
    const release = claimName('work');
    const common = { pid: process.pid, startedAt: '', running: true, kernel: '/k', cpus: 1, memory: 1, consoles: [] };
    writeRecord({ ...common, name: 'work' });
    writeRecord({ ...common, name: 'over', end: { at: '', reason: 'poweroff', detail: '', status: 0 } });
    const { status, stderr } = await runNemu(args, { env: env(), cwd: folder });
    release?.();
    expect(stderr).toContain(message);
    expect(status).toBe(2);
  });
});

test.each([
  [
    'function.ts',
    'const inner = (): never => {\n  throw new Error("boom");\n};\nexport default () => inner();\n',
    ':2:9)',
  ],
  ['common.cjs', 'module.exports = () => {\n  throw new Error("boom");\n};\n', ':2:9)'],
])('what %s throws is told with one place in it', async (name, text, place) => {
  const path = realpathSync(script(name, text));
  const vm = new Vm({ machine: new ScriptedMachine({ busy: false }) as unknown as MachineClient, guest: undefined });
  const error = await perform(vm, { script: path }, new EventLog(undefined)).catch((each) => each);
  expect(error).toMatchObject({ code: 'SCRIPT', message: expect.stringContaining(`${name} failed: Error: boom`) });
  expect(error.text.split(`${path}${place}`)).toHaveLength(2);
});

test('a module that throws outside of functions has its place too', () => {
  const path = realpathSync(script('outside.mjs', '\nthrow 1;\n'));
  const stack = `Error: boom\n    at file:///other.mjs:1:1\n    at ${pathToFileURL(path)}:2:7\n    at node:internal:1:1`;
  expect(placeInScript({ stack }, path)).toBe(`    at ${path}:2:7`);
  expect(placeInScript('boom', path)).toBeUndefined();
});
