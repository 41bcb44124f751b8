/** What clients hear of how fast the guest writes to its memory; QEMU 7.2 says the same to the same. */
import { expect, onTestFinished, test } from 'vitest';
import { FakeMachine, qmpServer } from '../../support/qmp.ts';

const MiB = 2 ** 20;

async function start() {
  const fake = new FakeMachine();
  const server = qmpServer(fake.client);
  onTestFinished(server.close);
  return { fake, peer: await server.connect() };
}

test('it is measured in the background, and asked for then', async () => {
  const { fake, peer } = await start();
  expect(await peer.execute('query-dirty-rate')).toMatchObject({
    status: 'unstarted',
    'start-time': 0,
    'calc-time': 0,
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  fake.gate = promise;
  fake.dirty = 20 * MiB;
  expect(await peer.execute('calc-dirty-rate', { 'calc-time': 2 })).toEqual({});
  const measuring = await peer.execute('query-dirty-rate');
  expect(measuring).toMatchObject({ status: 'measuring', 'calc-time': 2 });
  expect(measuring).not.toHaveProperty('dirty-rate');
  await expect(peer.execute('calc-dirty-rate', { 'calc-time': 1 })).rejects.toThrow(/already being measured/);
  resolve();
  await expect.poll(() => peer.execute('query-dirty-rate')).toMatchObject({ status: 'measured', 'dirty-rate': 10 });
  expect(await peer.execute('query-dirty-rate')).toMatchObject({
    ...{ 'calc-time': 2, mode: 'dirty-bitmap', 'sample-pages': 0 },
  });
});

test('what cannot be measured is refused, and nothing begins', async () => {
  const { peer } = await start();
  for (const [args, why] of [
    [{ 'calc-time': 0 }, /calc-time is out of range\[1, 60\]/],
    [{ 'calc-time': 61 }, /out of range/],
    [{ 'calc-time': 1, mode: 'dirty-ring' }, /no dirty ring/],
    [{ 'calc-time': 1, mode: 'dirty-bitmap', 'sample-pages': 512 }, /only in page-sampling mode/],
    [{}, /Parameter 'calc-time' is missing/],
  ] as const) {
    await expect(peer.execute('calc-dirty-rate', args)).rejects.toThrow(why);
  }
  expect(await peer.execute('query-dirty-rate')).toMatchObject({ status: 'unstarted' });
});

test('a machine that ends meanwhile leaves what was known before', async () => {
  const { fake, peer } = await start();
  fake.gate = Promise.reject(new Error('The machine was closed.'));
  await peer.execute('calc-dirty-rate', { 'calc-time': 1 });
  await expect.poll(() => peer.execute('query-dirty-rate')).toMatchObject({ status: 'unstarted' });
});

test('the human monitor has it too', async () => {
  const { fake, peer } = await start();
  fake.dirty = 3 * MiB;
  const say = (line: string) => peer.execute('human-monitor-command', { 'command-line': line });
  expect(await say('info dirty_rate')).toContain('Dirty rate: (not ready)');
  expect(await say('calc_dirty_rate 1')).toContain('Starting dirty rate measurement with period 1 seconds');
  await expect.poll(() => say('info dirty_rate')).toContain('Dirty rate: 3 (MB/s)');
  expect(await say('calc_dirty_rate')).toContain('Incorrect period length');
  expect(await say('calc_dirty_rate 100')).toContain('out of range');
});
