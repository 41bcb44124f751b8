import type { MachineClient } from '../client/machine_client.ts';
import { serveMachine } from '../client/serve.ts';
import type { Shared } from '../client/served_share.ts';
import { serveQmp } from '../qmp/server.ts';
import type { Surroundings } from '../qmp/surroundings.ts';
import { GdbListener, gdbOption } from './gdb_listener.ts';
import { servePrivately } from './private_socket.ts';

/**
 * Serves a machine at a unix socket that only this user may open: `EngineConnection.attach` is the other end.
 * @param shared what it has beside the machine, as far as it is handed out.
 * @returns the function that ends it, connections and all.
 * @throws NemuError CONTROL_SOCKET
 */
export function serveControl(path: string, machine: MachineClient, shared: Shared = {}): Promise<() => Promise<void>> {
  const purpose = { name: 'control socket', code: 'CONTROL_SOCKET', option: '--control' };
  return servePrivately(path, purpose, (socket) => {
    void serveMachine(socket, machine, shared);
  });
}

/**
 * Serves a machine by QEMU's protocol, at a unix socket that only this user may open.
 * @param address a path, or `unix:` and a path as QEMU has it; what follows a comma there says what is so anyway.
 * @returns the function that ends it, connections and all.
 * @throws NemuError QMP_SOCKET
 */
export async function serveQmpSocket(
  address: string,
  machine: MachineClient,
  surroundings: Surroundings = {},
): Promise<() => Promise<void>> {
  const path = address.replace(/^unix:/, '').replace(/(,(server(=on)?|wait=off|nowait))*$/, '');
  const server = serveQmp(machine, surroundings);
  try {
    const purpose = { name: 'QMP socket', code: 'QMP_SOCKET', option: '--qmp' };
    const end = await servePrivately(path, purpose, (socket) => server.connect(socket));
    return () => {
      const ended = end();
      server.close();
      return ended;
    };
  } catch (error) {
    server.close();
    throw error;
  }
}

export interface SocketOptions {
  readonly control?: string;
  readonly qmp?: string;
  readonly gdb?: string;
  readonly s?: boolean;
}

/**
 * Serves a machine wherever the options ask for it.
 * @param say tells where gdb is waited for.
 * @returns the function that ends all of it.
 */
export async function serveSockets(
  machine: MachineClient,
  { control, qmp, ...options }: SocketOptions,
  say: (text: string) => void,
  shared: Shared = {},
  surroundings: Omit<Surroundings, 'gdbServer'> & { readonly gdbServer?: GdbListener } = {},
): Promise<() => Promise<void>> {
  const { gdbServer = new GdbListener(machine) } = surroundings;
  const ends: (() => void | Promise<void>)[] = [() => gdbServer.close()];
  const end = async () => {
    await Promise.all(ends.map((each) => each()));
  };
  try {
    if (control !== undefined) ends.push(await serveControl(control, machine, shared));
    if (qmp !== undefined) ends.push(await serveQmpSocket(qmp, machine, { ...surroundings, gdbServer }));
    const gdb = gdbOption(options);
    if (gdb) {
      const target = await gdbServer.listen(gdb.address);
      say(`${gdb.wait ? 'The machine waits for' : 'It can be debugged by'} gdb -ex 'target remote ${target}'`);
    }
    return end;
  } catch (error) {
    end();
    throw error;
  }
}
