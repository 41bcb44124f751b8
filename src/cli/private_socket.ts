import { lstatSync, unlinkSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { isDeadSocket } from '../client/dead_socket.ts';
import { NemuError } from '../client/errors.ts';
import { type PeerCredentials, peerCredentials } from '../ffi/peer.ts';

/** Nobody but this user. */
const OTHERS = 0o177;
/** Connections at the same time: each costs memory. */
const MAX_CONNECTIONS = 64;
/** A peer may take so long for what was written to it last, milliseconds. */
const FLUSH_MS = 2000;

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
 * @returns the function that ends it, connections and all, once what was written to them is out.
 * @throws NemuError with the purpose's code.
 */
export async function servePrivately(
  path: string,
  purpose: SocketPurpose,
  serve: (socket: Socket) => void,
): Promise<() => Promise<void>> {
  const connections = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    // The file's mode keeps others out; who was let in by a mistake of it is told apart by the kernel.
    if (!isOurs(credentialsOf(socket))) {
      socket.destroy();
      return;
    }
    connections.add(socket);
    socket.once('close', () => connections.delete(socket));
    serve(socket);
  });
  server.maxConnections = MAX_CONNECTIONS;
  try {
    await listen(server, path);
  } catch (cause) {
    if (!isInUse(cause)) throw cannot(path, purpose, cause);
    if (!(await isDeadSocket(path))) throw inUse(path, purpose);
    try {
      unlinkSync(path);
      await listen(server, path);
    } catch (again) {
      throw cannot(path, purpose, again);
    }
  }
  return async () => {
    server.close();
    await Promise.all([...connections].map(endOf));
  };
}

/** Resolves when a connection has ended, and what was written to it is out: a peer that does not read has FLUSH_MS. */
function endOf(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => socket.destroy(), FLUSH_MS);
    socket.once('close', () => {
      clearTimeout(timer);
      resolve();
    });
    socket.end(() => socket.destroy());
  });
}

/** Who is at the other end of a unix socket; undefined when it is gone already. */
export function credentialsOf(socket: Socket): PeerCredentials | undefined {
  const { fd } = (socket as Socket & { readonly _handle?: { readonly fd: number } })._handle ?? { fd: -1 };
  try {
    return peerCredentials(fd);
  } catch {
    return undefined;
  }
}

/** This user, or the one who may do anything anyway. */
export const isOurs = (peer: PeerCredentials | undefined): boolean =>
  peer !== undefined && (peer.uid === process.getuid?.() || peer.uid === 0);

const isInUse = (error: unknown) => (error as NodeJS.ErrnoException).code === 'EADDRINUSE';

function inUse(path: string, { code, name, option }: SocketPurpose): NemuError {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket()) {
    return new NemuError(code, `Something else serves the ${name} ${path}.`, {
      hint: `Give each machine a socket of its own with ${option}.`,
    });
  }
  return new NemuError(code, `The ${name} ${path} cannot be made: there is something else, which is no socket.`, {
    hint: `Give another path with ${option}; nothing was touched.`,
  });
}

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
