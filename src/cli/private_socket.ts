import { unlinkSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { NemuError } from '../client/errors.ts';

/** Nobody but this user. */
const OTHERS = 0o177;
/** Connections at the same time: each costs memory. */
const MAX_CONNECTIONS = 64;

export interface SocketPurpose {
  /** As in "The control socket /x cannot be made". */
  readonly name: string;
  /** Of errors. */
  readonly code: string;
  readonly option: string;
}

/**
 * Listens at a unix socket that only this user may open. A socket that nobody serves any more is replaced.
 * @param serve told of each connection; one may still be answered when its peer has said its last.
 * @returns the function that ends it, connections and all.
 * @throws NemuError with the purpose's code.
 */
export async function servePrivately(
  path: string,
  purpose: SocketPurpose,
  serve: (socket: Socket) => void,
): Promise<() => void> {
  const connections = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    connections.add(socket);
    socket.once('close', () => connections.delete(socket));
    serve(socket);
  });
  server.maxConnections = MAX_CONNECTIONS;
  try {
    await listen(server, path);
  } catch (cause) {
    if (!isInUse(cause)) throw cannot(path, purpose, cause);
    if (await isServed(path)) {
      throw new NemuError(purpose.code, `Something else serves the ${purpose.name} ${path}.`, {
        hint: `Give each machine a socket of its own with ${purpose.option}.`,
      });
    }
    try {
      unlinkSync(path);
      await listen(server, path);
    } catch (again) {
      throw cannot(path, purpose, again);
    }
  }
  return () => {
    server.close();
    for (const socket of connections) socket.destroy();
  };
}

const isInUse = (error: unknown) => (error as NodeJS.ErrnoException).code === 'EADDRINUSE';

const cannot = (path: string, { code, name }: SocketPurpose, cause: unknown) =>
  new NemuError(code, `The ${name} ${path} cannot be made: ${(cause as Error).message}.`, {
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
