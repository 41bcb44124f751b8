/** Where gdb comes to a machine: a port, or a unix socket. */
import { createServer, type Socket } from 'node:net';
import { NemuError } from '../client/errors.ts';
import type { MachineClient } from '../client/machine_client.ts';
import { serveGdb } from '../gdb/server.ts';
import { humanMonitor } from '../qmp/human_monitor.ts';
import { Monitor } from '../qmp/monitor.ts';
import type { GdbServer } from '../qmp/surroundings.ts';
import { servePrivately } from './private_socket.ts';

/** What `-s` means, and gdb's usual port with QEMU. */
export const GDB_PORT = '1234';
const LOOPBACK = '127.0.0.1';
/** gdbs at the same time, of which one is not refused. */
const MAX_CONNECTIONS = 8;

export type GdbAddress = { readonly path: string } | { readonly host: string; readonly port: number };

export interface GdbOption {
  readonly address: GdbAddress;
  /** The machine stands before its first instruction until gdb has it go on. */
  readonly wait: boolean;
}

/**
 * `1234`, `HOST:1234`, `tcp::1234` or `unix:PATH`, as QEMU writes it too, and `,wait`. Without a host it is this one's
 * loopback.
 * @throws NemuError USAGE
 */
export function parseGdbOption(text: string): GdbOption {
  const [where, ...words] = text.split(',');
  const wait = words.includes('wait');
  const unknown = words.find((word) => !/^(wait|nowait|wait=off|server|server=on)$/.test(word));
  const path = /^unix:(.+)$/.exec(where)?.[1];
  if (path !== undefined && unknown === undefined) return { address: { path }, wait };
  const [, bracketed, plain, digits] = /^(?:tcp:)?(?:(?:\[([^\]]+)\]|([^:]*)):)?(\d{1,5})$/.exec(where) ?? [];
  const port = Number(digits);
  if (digits === undefined || port > 65_535 || unknown !== undefined) {
    throw new NemuError('USAGE', `"${text}" is no place where gdb could connect${unknown ? `: ${unknown}` : ''}.`, {
      hint: 'It is [HOST:]PORT or unix:PATH, and ,wait for a machine that is to wait for gdb.',
    });
  }
  return { address: { host: bracketed || plain || LOOPBACK, port }, wait };
}

/** What `--gdb` and `-s` say together. @throws NemuError USAGE */
export const gdbOption = ({ gdb, s }: { readonly gdb?: string; readonly s?: boolean }): GdbOption | undefined =>
  gdb === undefined && !s ? undefined : parseGdbOption(gdb ?? GDB_PORT);

/** Starts a machine, or leaves that to gdb. @param begun told when it runs, or waits. @returns when it runs, or has ended. */
export async function startMachine(machine: MachineClient, wait: boolean, begun: () => void = () => {}): Promise<void> {
  if (!wait) {
    await machine.start();
    begun();
    return;
  }
  const { promise, resolve } = Promise.withResolvers<void>();
  const unlisten = machine.onEvent(({ type }) => type === 'state' && resolve());
  begun();
  if (machine.state === 'created') await promise;
  unlisten();
}

/** A machine's end of gdb. It listens at one place at a time. */
export class GdbListener implements GdbServer {
  readonly #machine: MachineClient;
  #monitor: Monitor | undefined;
  #end: (() => void) | undefined;

  constructor(machine: MachineClient) {
    this.#machine = machine;
  }

  /** @returns what gdb connects to: `target remote` and this. @throws NemuError USAGE, GDB_SOCKET */
  async listen(where: GdbAddress | string): Promise<string> {
    const address = typeof where === 'string' ? parseGdbOption(where).address : where;
    this.stop();
    const ended = 'path' in address ? await this.#listenPrivately(address.path) : await this.#listenAt(address);
    this.#end = ended.end;
    return ended.target;
  }

  stop(): void {
    this.#end?.();
    this.#end = undefined;
  }

  close(): void {
    this.stop();
    this.#monitor?.close();
  }

  #serve(socket: Socket): void {
    this.#monitor ??= new Monitor(this.#machine, { gdbServer: this });
    const monitor = this.#monitor;
    void serveGdb(socket, this.#machine, {
      monitor: async (line, vcpu) => (await humanMonitor(monitor, line, vcpu)).replaceAll('\r\n', '\n'),
    });
  }

  async #listenPrivately(path: string): Promise<{ target: string; end: () => void }> {
    const purpose = { name: 'socket for gdb', code: 'GDB_SOCKET', option: '--gdb unix:PATH' };
    return { target: path, end: await servePrivately(path, purpose, (socket) => this.#serve(socket)) };
  }

  async #listenAt({ host, port }: { readonly host: string; readonly port: number }) {
    const connections = new Set<Socket>();
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      connections.add(socket);
      socket.once('close', () => connections.delete(socket));
      this.#serve(socket);
    });
    server.maxConnections = MAX_CONNECTIONS;
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause) =>
        reject(
          new NemuError('GDB_SOCKET', `gdb cannot be waited for at ${host}:${port}: ${cause.message}.`, {
            hint: 'Give another port, 0 for any that is free, or unix:PATH.',
            cause,
          }),
        ),
      );
      server.listen(port, host, resolve);
    });
    const found = server.address();
    const bound = typeof found === 'object' && found ? found.port : port;
    return {
      target: `${host.includes(':') ? `[${host}]` : host}:${bound}`,
      end: () => {
        server.close();
        for (const socket of connections) socket.destroy();
      },
    };
  }
}
