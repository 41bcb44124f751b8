/** What is typed at a console reaches the guest in order and to the end, whoever leaves meanwhile. */
import { duplexPair } from 'node:stream';
import { describe, expect, test, vi } from 'vitest';
import { ConsoleInput, LEAVE_MS, leaveConsole } from '../../../src/client/console_input.ts';
import { parseMachine } from '../../../src/client/description.ts';
import type { ConsoleStream, MachineClient } from '../../../src/client/machine_client.ts';
import { WINDOW } from '../../../src/client/protocol.ts';
import { EngineConnection } from '../../../src/client/remote.ts';
import { serveMachine } from '../../../src/client/serve.ts';
import { ConsoleHub } from '../../../src/console/hub.ts';

class Guest implements ConsoleStream {
  readonly name = 'com1';
  onData: ((bytes: Uint8Array) => void) | undefined;
  onLost: ((count: number) => void) | undefined;
  onWritable: (() => void) | undefined;
  typed = '';
  #room = 0;
  write(bytes: Uint8Array): number {
    const count = Math.min(this.#room, bytes.length);
    this.#room -= count;
    this.typed += Buffer.from(bytes.subarray(0, count)).toString('latin1');
    return count;
  }
  takes(count: number): void {
    this.#room = count;
    this.onWritable?.();
  }
}

const settled = () => new Promise((resolve) => setTimeout(resolve, 20));

test('what is typed behind what waits waits too, though there is room meanwhile', () => {
  const guest = new Guest();
  guest.takes(4);
  const input = new ConsoleInput(guest);
  input.send(Buffer.from('first'));
  // Room comes before the console tells of it.
  guest.onWritable = undefined;
  const again = new ConsoleInput(guest);
  again.send(Buffer.from('a'));
  guest.takes(1);
  again.send(Buffer.from('b'));
  again.send(Buffer.from('c'));
  expect(guest.typed).toBe('firsa');
  expect(again.waiting).toBe(2);
  guest.takes(10);
  expect(guest.typed).toBe('firsabc');
  expect([again.waiting, input.drop(), input.waiting]).toEqual([0, 1, 0]);
});

describe('who leaves a console', () => {
  const open = async () => {
    const guest = new Guest();
    const hub = new ConsoleHub(guest);
    const machine = {
      ...{ description: parseMachine({ kernel: { image: '/k' } }), state: 'running', end: undefined },
      onEvent: () => () => {},
    } as unknown as MachineClient;
    const consoles = {
      names: ['com1'],
      open: (_: string, options: Parameters<ConsoleHub['open']>[0]) => hub.open(options),
      search: () => [],
      report: () => [hub.report()],
    };
    const [ours, theirs] = duplexPair();
    const served = serveMachine(theirs, machine, { consoles });
    const connection = new EngineConnection(ours);
    const { share } = await connection.attach('ann');
    const viewer = await share!.openConsole('com1', { role: 'driver' });
    return { guest, hub, connection, viewer, typed: new ConsoleInput(viewer), served };
  };

  test('leaves what was pasted to the guest, which takes it later', async () => {
    const { guest, hub, viewer, typed, connection, served } = await open();
    const pasted = `begin${'x'.repeat(WINDOW + 5000)}end`;
    typed.send(Buffer.from(pasted));
    await settled();
    guest.takes(16);
    await settled();
    const left = leaveConsole(viewer, typed, 'work');
    await settled();
    expect(hub.report().driver).toBe('ann');
    guest.takes(1e6);
    expect(await left).toBe('');
    expect(guest.typed).toBe(pasted);
    expect(hub.report().driver).toBeUndefined();
    connection.close();
    await served;
  });

  test('without a word leaves it too', async () => {
    const { guest, hub, viewer, connection, served } = await open();
    viewer.write(Buffer.from('make\r'));
    await settled();
    connection.close();
    await served;
    expect(hub.report().driver).toBe('ann');
    guest.takes(100);
    await settled();
    expect([guest.typed, hub.report().driver]).toEqual(['make\r', undefined]);
  });

  test('is told how much the guest did not take before another drove', async () => {
    const { guest, hub, viewer, typed, connection } = await open();
    typed.send(Buffer.from('x'.repeat(5000)));
    guest.takes(16);
    await settled();
    const left = leaveConsole(viewer, typed, 'work');
    await settled();
    const bob = hub.open({ role: 'takeover', label: 'bob' });
    expect(await left).toContain('The last 4984 bytes typed at work went nowhere');
    bob.write(Buffer.from('b'));
    guest.takes(100);
    expect(guest.typed).toBe('x'.repeat(16));
    connection.close();
  });

  test('is told how much the guest did not take in time', async () => {
    const { viewer, typed, connection, hub } = await open();
    typed.send(Buffer.from('x'.repeat(5000)));
    await settled();
    vi.useFakeTimers();
    try {
      const left = leaveConsole(viewer, typed, 'work');
      await vi.advanceTimersByTimeAsync(LEAVE_MS + 10);
      expect(await left).toContain('The last 5000 bytes typed at work went nowhere');
    } finally {
      vi.useRealTimers();
    }
    expect(hub.report().driver).toBeUndefined();
    connection.close();
  });

  test('has its room back when another took over what waited', async () => {
    const { hub, viewer, typed, guest, connection } = await open();
    typed.send(Buffer.alloc(WINDOW));
    await settled();
    hub.open({ role: 'takeover', label: 'bob' });
    await settled();
    viewer.takeOver();
    guest.takes(100);
    typed.send(Buffer.from('again'));
    await settled();
    expect(guest.typed).toBe('again');
    connection.close();
  });
});
