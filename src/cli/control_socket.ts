import { unlinkSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { NemuError } from '../client/errors.ts';
import type { MachineClient } from '../client/machine_client.ts';
import { serveMachine } from '../client/serve.ts';

/** Nobody but this user. */
const OTHERS = 0o177;

/**
 * Serves a machine at a unix socket that only this user may open: `EngineConnection.attach` is the other end. A
 * socket that nobody serves any more is replaced.
 * @returns the function that ends it, connections and all.
 * @throws NemuError CONTROL_SOCKET
 */
export async function serveControl(path: string, machine: MachineClient): Promise<() => void> {
  const connections = new Set<Socket>();
  const server = createServer((socket) => {
    connections.add(socket);
    socket.once('close', () => connections.delete(socket));
    void serveMachine(socket, machine);
  });
  try {
    await listen(server, path);
  } catch (cause) {
    if (!isInUse(cause)) throw cannot(path, cause);
    if (await isServed(path)) {
      throw new NemuError('CONTROL_SOCKET', `Something else serves the control socket ${path}.`, {
        hint: 'Give each machine a socket of its own with --control.',
      });
    }
    try {
      unlinkSync(path);
      await listen(server, path);
    } catch (again) {
      throw cannot(path, again);
    }
  }
  return () => {
    server.close();
    for (const socket of connections) socket.destroy();
  };
}

const isInUse = (error: unknown) => (error as NodeJS.ErrnoException).code === 'EADDRINUSE';

const cannot = (path: string, cause: unknown) =>
  new NemuError('CONTROL_SOCKET', `The control socket ${path} cannot be made: ${(cause as Error).message}.`, {
    hint: 'Give a short path (107 bytes at most) in a folder of yours, where no other file stands.',
    cause,
  });

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    // The socket is made within this call.
    const mask = process.umask(OTHERS);
    try {
      server.listen(path, () => {
        server.off('error', reject);
        resolve();
      });
    } finally {
      process.umask(mask);
    }
  });
}

/** Does anybody answer? A file that is no socket is somebody's too. */
function isServed(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'));
  });
}
