import { expect, test } from 'vitest';
import type { ConsoleStream, MachineClient, MachineEvent } from '../../../src/client/machine_client.ts';
import { MachineConsoles } from '../../../src/console/machine_consoles.ts';

test('a console that is plugged is one of them, until it goes', async () => {
  const streams = new Map<string, ConsoleStream>();
  let tell: (event: MachineEvent) => void = () => {};
  const machine = {
    description: { name: 'm' },
    console: (name: string) => {
      const stream: ConsoleStream = {
        ...{ name, onData: undefined, onLost: undefined, onWritable: undefined },
        write: (bytes) => bytes.length,
      };
      streams.set(name, stream);
      return stream;
    },
    onEvent: (listener: typeof tell) => {
      tell = listener;
      return () => {
        tell = () => {};
      };
    },
    resizeConsole: async () => true,
  } as unknown as MachineClient;
  const tapped: string[] = [];
  const closed: string[] = [];
  const consoles = new MachineConsoles(machine, {
    names: ['com1'],
    taps: (name) => [{ bytes: (bytes) => void tapped.push(`${name} ${Buffer.from(bytes)}`) }],
    terminal: (name) => ({
      ...{ path: `/dev/pts/${name}`, connected: false, written: false },
      listen: () => ({ pause: () => {}, resume: () => {}, close: () => {} }),
      write: (bytes) => bytes.length,
      forget: () => {},
      close: () => void closed.push(name),
    }),
  });
  expect(consoles.names).toEqual(['com1']);
  tell({ type: 'console', name: 'hvc0', change: 'added' });
  expect(consoles.names).toEqual(['com1', 'hvc0']);
  expect(consoles.report().map(({ pty }) => pty)).toEqual(['/dev/pts/com1', '/dev/pts/hvc0']);
  streams.get('hvc0')?.onData?.(Buffer.from('hello'));
  expect(tapped).toEqual(['hvc0 hello']);
  const viewer = consoles.open('hvc0', { role: 'viewer', label: 'ann' });
  expect(consoles.report().find(({ name }) => name === 'hvc0')?.viewers).toHaveLength(1);
  viewer.close();
  tell({ type: 'console', name: 'hvc0', change: 'removed' });
  expect(consoles.names).toEqual(['com1']);
  expect(() => consoles.hub('hvc0')).toThrow(/hands out no console "hvc0"/);
  await new Promise((resolve) => setImmediate(resolve));
  expect(closed).toEqual(['hvc0']);
  consoles.close();
  expect(closed).toEqual(['hvc0', 'com1']);
});
