/** Lines of code and commands on a scripted machine: what they give, and what is said when they fail. */
import { expect, onTestFinished, test } from 'vitest';
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

test('what is no description is none', async () => {
  const session = open();
  expect(await told(session, 'vm.apply(5)')).toMatch(/^vm\.apply takes a file or a description, not 5\.\n/);
  expect(await told(session, 'vm.apply()')).toMatch(/^vm\.apply takes a file or a description, not undefined\.\n/);
});

test('a question gets help: on an object, and on what it does', async () => {
  const session = open();
  const answer = async (line: string) => session.print(await session.evaluate(line));
  expect(await answer('vm?')).toMatch(/^the machine\n/);
  expect(await answer('vm.cpus.add?')).toBe('await vm.cpus.add(2)\n  plugs vCPUs; needs room: --cpus 1,max=8');
  expect(await answer('vm.name?')).toMatch(/has no help\.$/);
});

test('several lines of commands run one after the other, whatever comes of one', async () => {
  const session = open();
  const lines = 'info memory\nunplug nothing\n\nvm.name.length > 0\n[1,\n2].length';
  expect(ReplSession.areCommands(lines)).toBe(true);
  expect(ReplSession.areCommands('const x = 1;\nx + 1')).toBe(false);
  expect(ReplSession.areCommands('info memory')).toBe(false);
  const said: string[] = [];
  expect(await session.runLines(lines, (text) => said.push(text))).toBe(false);
  expect(said[0]).toMatch(/MiB/);
  expect(said.slice(-2)).toEqual(['true\n', '2\n']);
  expect(await session.runLines('info memory\ninfo cpus', () => {})).toBe(true);
});
