/** Signals to a process that runs code for a script: they are its own again when the code waits or is done. */
import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';

const SESSION = new URL('../../../src/repl/session.ts', import.meta.url).href;

const run = (code: string) =>
  spawnSync(
    process.execPath,
    [
      ...['--disable-warning=ExperimentalWarning', '--input-type=module', '-e'],
      `import { ReplSession } from '${SESSION}';
      process.on('SIGINT', () => process.exit(5));
      const machine = { onEvent: () => () => {} };
      const session = new ReplSession({ name: 'x', machine, journal: { idle: async () => {} } });
      const press = (ms) => setTimeout(() => process.kill(process.pid, 'SIGINT'), ms);
      ${code}`,
    ],
    { encoding: 'utf8', timeout: 30_000 },
  );

test('SIGINT is heard when the code is done, and while it waits', () => {
  expect(run("await session.evaluate('1 + 1'); press(50); setTimeout(() => {}, 10_000);").status).toBe(5);
  expect(
    run("press(300); await session.evaluate('await new Promise((done) => setTimeout(done, 10_000))');").status,
  ).toBe(5);
});

test('a loop without end is broken off by it', () => {
  const { stdout, stderr } = run(`
    const { spawn } = await import('node:child_process');
    spawn('sh', ['-c', 'sleep 0.5; kill -INT ' + process.pid], { stdio: 'ignore' });
    await session.evaluate('for (;;);').catch(({ code }) => console.log(code));
    process.exit(0);`);
  expect([stdout, stderr]).toEqual(['INTERRUPTED\n', '']);
});
