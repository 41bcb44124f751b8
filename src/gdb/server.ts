import type { Duplex } from 'node:stream';
import type { MachineClient } from '../client/machine_client.ts';
import { type GdbOptions, GdbSession } from './session.ts';

/**
 * Serves a machine to gdb until the stream ends: `target remote`. The machine stops while gdb is at its prompt, and goes
 * on when it leaves. A second gdb is refused in a sentence. The peer is untrusted in what it says, and may do with the
 * guest all that its owner may.
 */
export const serveGdb = (stream: Duplex, machine: MachineClient, options: GdbOptions = {}): Promise<void> =>
  new GdbSession(machine, stream, options).run();
