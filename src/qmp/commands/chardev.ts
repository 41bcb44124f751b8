/** Serial ports, consoles and ports, and what is at the host's end of them. */
import * as z from 'zod';
import { isAgents } from '../../client/guest_session.ts';
import { CHARDEV_BACKENDS, chardevBackend } from '../chardevs.ts';
import { command } from '../command.ts';
import { QmpError } from '../errors.ts';
import type { Monitor } from '../monitor.ts';
import type { RingBuffer } from '../ring_buffer.ts';
import { bool, int, none, str } from '../types.ts';

const format = z.enum(['utf8', 'base64']).optional();

export function queryChardev({ machine, chardevs, surroundings, openPorts }: Monitor) {
  const shared = surroundings.consoles?.report();
  const names = shared?.map(({ name }) => name) ?? machine.consoles.filter((name) => !isAgents(name));
  const others = names.filter((name) => !chardevs.all.some(({ usedBy }) => usedBy === name));
  return [
    ...others.map((label) => {
      const pty = shared?.find(({ name }) => name === label)?.pty;
      return { label, filename: pty === undefined ? 'console' : `pty:${pty}`, 'frontend-open': true };
    }),
    ...chardevs.all.map(({ id, filename, usedBy }) => ({
      ...{ label: id, filename, 'frontend-open': usedBy !== undefined && openPorts.has(usedBy) },
    })),
  ];
}

const BASE64 = /^[A-Za-z0-9+/\r\n]*={0,2}[\r\n]*$/;

/** @throws QmpError */
function ringOf({ chardevs }: Monitor, device: string): RingBuffer {
  const chardev = chardevs.get(device);
  if (!chardev) throw new QmpError(`Device '${device}' not found`);
  if (!chardev.ring) throw new QmpError(`${device} is not a ringbuf device`);
  return chardev.ring;
}

export const CHARDEV = [
  command({
    name: 'query-chardev',
    summary: 'serial ports and consoles, and what `chardev-add` made',
    args: none,
    returns: z.array(z.strictObject({ label: str, filename: str, 'frontend-open': bool })),
    run: queryChardev,
  }),
  command({
    name: 'query-chardev-backends',
    summary: 'what `chardev-add` makes',
    args: none,
    returns: z.array(z.strictObject({ name: str })),
    run: () => CHARDEV_BACKENDS.map((name) => ({ name })),
  }),
  command({
    name: 'chardev-add',
    summary: "makes the host's end of a virtio console or port",
    changes: true,
    args: z.strictObject({ id: str, backend: chardevBackend }),
    returns: z.strictObject({ pty: str.optional() }),
    run: ({ chardevs }, { id, backend }) => chardevs.add(id, backend),
  }),
  command({
    name: 'chardev-remove',
    summary: 'takes back what `chardev-add` made',
    changes: true,
    args: z.strictObject({ id: str }),
    returns: none,
    run: ({ chardevs }, { id }) => {
      chardevs.remove(id);
      return {};
    },
  }),
  command({
    name: 'ringbuf-read',
    summary: 'takes bytes out of a ring buffer',
    args: z.strictObject({ device: str, size: int, format }),
    returns: str,
    run: (monitor, { device, size, format: how = 'utf8' }) => {
      const ring = ringOf(monitor, device);
      if (size <= 0) throw new QmpError('size must be greater than zero');
      return ring.read(size).toString(how);
    },
  }),
  command({
    name: 'ringbuf-write',
    summary: 'puts bytes into a ring buffer, as if the guest had written them',
    changes: true,
    args: z.strictObject({ device: str, data: str, format }),
    returns: none,
    run: (monitor, { device, data, format: how = 'utf8' }) => {
      const ring = ringOf(monitor, device);
      if (how === 'base64' && !BASE64.test(data)) throw new QmpError('Base64 data contains invalid characters');
      ring.write(Buffer.from(data, how));
      return {};
    },
  }),
];
