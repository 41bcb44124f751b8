import type { Duplex } from 'node:stream';
import type { MachineClient } from '../client/machine_client.ts';
import { Monitor } from './monitor.ts';
import { QmpSession } from './session.ts';
import type { Surroundings } from './surroundings.ts';

export interface QmpServer {
  /** Serves one more peer. @returns a promise that resolves when its stream has ended. */
  connect(stream: Duplex): Promise<void>;
  close(): void;
}

/** The QMP server of a machine. Its peers are untrusted in what they send, and may do all that the machine's owner may. */
export function serveQmp(machine: MachineClient, surroundings: Surroundings = {}): QmpServer {
  const monitor = new Monitor(machine, surroundings);
  return {
    connect: (stream) => new QmpSession(stream, monitor).ended,
    close: () => monitor.close(),
  };
}
