/** Lines of code and commands on a scripted machine: what they give, and what is said when they fail. */
import { PassThrough } from 'node:stream';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { GuestChannel } from '../../../src/client/guest_session.ts';
import type { LiveDevice } from '../../../src/client/live.ts';
import { ReplSession } from '../../../src/repl/session.ts';
import { Vm } from '../../../src/repl/vm.ts';
import { ScriptedMachine } from '../../support/scripted_machine.ts';

function open(): ReplSession {
  const { client } = new ScriptedMachine({ busy: false });
  const session = new ReplSession(new Vm({ machine: client, guest: undefined }));
  onTestFinished(() => session.close());
  return session;
}

const told = async (session: ReplSession, code: string) =>
  session.evaluate(code).then(
    () => 'nothing',
    (error) => session.tell(error),
  );

test('an error in the code says what is wrong, and where', async () => {
  const session = open();
  expect(await told(session, 'const a = ;')).toBe(
    ["SyntaxError: Unexpected token ';'", 'const a = ;', '          ^'].join('\n'),
  );
  expect(await told(session, 'throw new Error("broken")')).toMatch(/^Error: broken\n {4}at eval:1:\d+$/);
  // All of a message, and nothing of this program's own stack.
  const assertion = await told(session, 'assert.equal(1, 2)');
  expect(assertion).toMatch(/^AssertionError \[ERR_ASSERTION\]: .*\n\n1 !== 2\n/);
  expect(assertion).not.toMatch(/session\.ts|dist\/nemu/);
  expect(await told(session, 'vmm')).toBe('There is no "vmm". Did you mean vm?');
});

test('an error within a value is a sentence too', async () => {
  const session = open();
  const value = await session.evaluate("await Promise.allSettled([vm.info('nosuch')])");
  expect(session.print(value)).toMatch(/reason: info knows nothing of "nosuch"\.\n +It knows/);
  expect(session.print(value)).not.toMatch(/NemuError|at /);
  expect(await told(session, "vm.memory.read('foo')")).toMatch(/^'foo' is not a guest-physical address\./);
});

test('what is no description is none', async () => {
  const session = open();
  expect(await told(session, 'vm.apply(5)')).toMatch(/^vm\.apply takes a file or a description, not 5\.\n/);
  expect(await told(session, 'vm.apply()')).toMatch(/^vm\.apply takes a file or a description, not undefined\.\n/);
});

test('whatever is thrown is a failure, and is told as it is', async () => {
  const session = open();
  for (const value of ['null', 'undefined', '0', '{ a: 1 }']) {
    expect(await told(session, `throw ${value}`)).toBe(`Thrown: ${value}`);
    // Node's evaluator does not tell a promise that was rejected with null from one that was resolved.
    if (value === 'null') continue;
    expect(await told(session, `await Promise.reject(${value})`)).toBe(`Thrown: ${value}`);
  }
  expect(await told(session, "throw ''")).toBe("Thrown: ''");
  expect(await told(session, "throw 'a word'")).toBe('Thrown: a word');
});

test('code that looks whether something is there is no mistake', async () => {
  const session = open();
  for (const code of [
    'assert.equal(vm.disks.vdz, undefined)',
    'assert.ok(!vm.disks.vdz)',
    'vm.disks.vdz?.unplug()',
    'if (vm.cpus[99]) 1',
    'await Promise.resolve(vm.disks.vdz)',
  ]) {
    expect(await told(session, code), code).toBe('nothing');
  }
  for (const code of ['vm.disks.vdz', 'await vm.disks["vdz"];', 'vm.disks.vdz.unplug()']) {
    expect(await told(session, code), code).toMatch(/^There is no disk "vdz"\./);
  }
});

test('a question gets help: on an object, and on what it does', async () => {
  const session = open();
  const answer = async (line: string) => session.print(await session.evaluate(line));
  expect(await answer('vm?')).toMatch(/^the machine\n/);
  expect(await answer('vm.cpus.add?')).toBe('await vm.cpus.add(2)\n  plugs vCPUs; needs room: --cpus 1,max=8');
  expect(await answer('vm.name?')).toBe('vm.name\n  its name');
  expect(await answer('vm.pci?')).toMatch(/^PCI: functions, .*\n(.*\n)* +vm\.pci\.ports /);
  expect(await answer('vm.pci.plug?')).toMatch(/^await vm\.pci\.plug\('virtio-blk'/);
  for (const name of ['disks', 'plugged']) expect(await answer(`vm.${name}?`)).toContain('vm.');
  expect(await answer('vm.memory.virtio[0]?')).toMatch(/^memory that the guest plugs and unplugs by blocks/);
  expect(await answer("await vm.pci('net0')?")).toMatch(/^a PCI function/);
  expect(await answer('assert?')).toMatch(/has no help\.$/);
});

/** Takes what the lines give, and what fails. */
const into = (said: string[]): [(value: unknown) => void, (text: string) => void] => [
  (value) => said.push(String(value)),
  (text) => said.push(text),
];

test('a question is a line of its own, with await too', async () => {
  const said: string[] = [];
  expect(await open().runLines("await vm.pci('net0')?\nvm.name", ...into(said))).toBe(true);
  expect(said.at(-1)).toBe('work');
});

test("a name of the user's own is not the command", async () => {
  const session = open();
  await session.evaluate('const x = 5; let pci = 6; globalThis.disk = 7');
  expect(await session.evaluate('x')).toBe(5);
  expect(await session.evaluate('pci')).toBe(6);
  expect(await session.evaluate('disk')).toBe(7);
  expect(await told(session, 'net')).toMatch(/^net NAME link on\|off/);
  expect(await told(session, 'cpu')).toMatch(/^cpu add/);
});

test.each([
  ['unplgu dimm0', 'There is no command "unplgu".\nDid you mean unplug?'],
  ['infoo cpus', 'There is no command "infoo".\nDid you mean info?'],
  ['vm.memry', 'vm has no "memry".\nDid you mean memory?'],
  ['vm.memory.reed(1)', 'vm.memory has no "reed".\nDid you mean read?'],
  ['vm.memry.read(1)', 'vm has no "memry".\nDid you mean memory?'],
  ['disk vdz resize 1G', 'There is no disk "vdz".\nThere is none.'],
  ['net nothing link off', 'There is no network card "nothing".\nThere is net0.'],
])('%s is told what there is', async (line, text) => {
  const session = open();
  await new Promise((resolve) => setImmediate(resolve));
  expect(await told(session, line)).toBe(text);
});

test('a failure that nobody waited for is the status', async () => {
  // Here they are the test runner's, which takes them for failures of the test.
  const others = process.listeners('unhandledRejection');
  process.removeAllListeners('unhandledRejection');
  onTestFinished(() => others.forEach((each) => void process.on('unhandledRejection', each)));
  const session = open();
  expect(await told(session, "vm.unplug('nosuch'); 1")).toMatch(/^nosuch was not unplugged/);
  expect(await told(session, "vm.info('nosuch'); 1")).toMatch(/^info knows nothing of "nosuch"/);
  expect(await told(session, "vm.unplug('nosuch').catch(() => {}); 1")).toBe('nothing');
  const said: string[] = [];
  expect(await session.runLines("vm.unplug('nosuch'); 1\n2", ...into(said))).toBe(false);
  expect(said.join('\n')).toMatch(/^1\nnosuch was not unplugged[\s\S]*\n2$/);
});

test('several lines of commands run one after the other, whatever comes of one', async () => {
  const session = open();
  const lines = 'info memory\nunplug nothing\n\nvm.name.length > 0\n[1,\n2].length';
  expect(ReplSession.areCommands(lines)).toBe(true);
  expect(ReplSession.areCommands('const x = 1;\nx + 1')).toBe(false);
  expect(ReplSession.areCommands('info memory')).toBe(false);
  const said: string[] = [];
  expect(await session.runLines(lines, ...into(said))).toBe(false);
  expect(said[0]).toMatch(/MiB/);
  expect(said.slice(-2)).toEqual(['true', '2']);
  expect(await session.runLines('info memory\ninfo cpus', ...into([]))).toBe(true);
});

/** A person at a terminal, at a machine whose guest never answers. */
async function atTerminal({ greeting = false } = {}) {
  const machine = new ScriptedMachine({ busy: false });
  const signals: AbortSignal[] = [];
  const run = (_script: string, { signal }: { signal?: AbortSignal } = {}) => {
    if (signal) signals.push(signal);
    return new Promise((resolve) => {
      signal?.addEventListener('abort', () => resolve({ status: 143, output: Buffer.alloc(0) }));
    });
  };
  const vm = new Vm({ machine: machine.client, guest: { run } as unknown as GuestChannel });
  const input = new PassThrough();
  const output = Object.assign(new PassThrough(), { columns: 80, rows: 24, isTTY: true });
  let said = '';
  output.on('data', (bytes: Buffer) => {
    said += bytes.toString();
  });
  const session = new ReplSession(vm, { input, output, terminal: true, colors: false, greeting });
  onTestFinished(() => session.close());
  const until = (what: string | RegExp) => expect.poll(() => said, { timeout: 5000 }).toMatch(what);
  const type = (text: string) => {
    said = '';
    input.write(text);
  };
  await until('work> ');
  return { machine, vm, type, until, signals, told: () => said };
}

test('a terminal is told how to begin, where it is wanted', async () => {
  const first = 'help lists the commands; vm? tells of the machine; Ctrl-D leaves\n';
  expect((await atTerminal({ greeting: true })).told().startsWith(first)).toBe(true);
  expect((await atTerminal()).told()).not.toContain('Ctrl-D');
});

test('the power button says that the rest is up to the guest', async () => {
  const { type, until } = await atTerminal();
  type('power\r');
  await until(/The power button was pressed\. What comes of it is up to the guest: vm\.state\s+tells\./);
});

describe('at a terminal, Ctrl-C', () => {
  test.each(['sh sleep 1000', "vm.sh('sleep 1000')", "for (;;) await vm.sh('sleep 1000')"])(
    'ends a wait, and the command in the guest: %s',
    async (line) => {
      const { type, until, signals } = await atTerminal();
      type(`${line}\r`);
      await expect.poll(() => signals).toHaveLength(1);
      type('\x03');
      await until(/Interrupted\. The guest is told to end the command\.\r?\n[\s\S]*work> /);
      expect(signals.map(({ aborted }) => aborted)).toEqual([true]);
      type('1 + 41\r');
      await until(/\n42/);
      expect(signals).toHaveLength(1);
    },
  );

  test('leaves a request to the guest, says so, and its stages come above what is typed', async () => {
    const { machine, type, until } = await atTerminal();
    type('memory plug 256M\r');
    await until('plug dimm3: accepted');
    type('\x03');
    await until(/The guest may still do what it was asked \(plug dimm3\): info\s+requests tells\.[\s\S]*work> /);
    type('1 + ');
    await until(/1 \+ $/);
    machine.settle('online');
    await until('\r\x1b[Kplug dimm3: online\n');
    await until(/work> 1 \+ /);
    type('41\r');
    await until(/\n42/);
  });

  test('is not needed to see what a stage waits for', async () => {
    const { machine, until } = await atTerminal();
    const device = { kind: 'cpu', id: 'cpu1' } as LiveDevice;
    const request = { id: 1, action: 'unplug', origin: 'user', device, history: [] } as const;
    machine.tell({ type: 'request', request: { ...request, stage: 'notified', guest: 'echo it >unbind' } });
    await until('unplug cpu1: notified (echo it >unbind)');
  });

  test('ends what waits for something else, and does at the prompt what it always did', async () => {
    const { type, until, told } = await atTerminal();
    type('await new Promise(() => {})\r');
    await until('\n');
    type('\x03');
    await until('Interrupted. What the code waits for is not waited for any more.');
    await until('work> ');
    type('half a li');
    type('\x03');
    await until('work> ');
    expect(told()).not.toContain('Interrupted');
    type('\x03');
    await until('To exit, press Ctrl+C again');
  });
});
