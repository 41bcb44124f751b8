/** A machine in the background, by its name. */
import { readlinkSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { userInfo } from 'node:os';
import { NemuError } from '../../client/errors.ts';
import { EngineConnection, type RemoteMachine } from '../../client/remote.ts';
import type { RemoteShare } from '../../client/remote_share.ts';
import { credentialsOf, isOurs } from '../private_socket.ts';
import { runtimePaths } from './folders.ts';
import { findMachine, type KnownMachine, runningMachine } from './records.ts';

/** How long an engine may take to answer. */
const ANSWER_MS = 5000;

export interface AttachedMachine {
  readonly name: string;
  readonly known: KnownMachine;
  readonly machine: RemoteMachine;
  readonly share: RemoteShare;
  /** The engine's, as the kernel knows it. */
  readonly pid: number;
  /** Leaves the machine as it is. */
  close(): void;
}

/** Who this is, for the others at a console: `ann on pts/3`. */
export function ownLabel(): string {
  const user = process.env.USER ?? userInfo().username;
  try {
    const terminal = readlinkSync('/proc/self/fd/0');
    return terminal.startsWith('/dev/') ? `${user} on ${terminal.slice('/dev/'.length)}` : user;
  } catch {
    return user;
  }
}

function connectTo(path: string, name: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('error', (cause) =>
      reject(
        findMachine(name)?.status === 'starting'
          ? new NemuError('MACHINE', `The machine ${name} is starting, and takes no connections yet.`, {
              hint: 'nemu ps says when it runs; try again then.',
              cause,
            })
          : new NemuError('MACHINE', `The machine ${name} cannot be reached: ${cause.message}.`, {
              hint: `nemu ps -a says what it does; nemu logs ${name} has what it said.`,
              cause,
            }),
      ),
    );
    socket.once('connect', () => {
      if (isOurs(credentialsOf(socket))) {
        resolve(socket);
        return;
      }
      socket.destroy();
      reject(new NemuError('MACHINE', `Whoever serves ${path} is another user.`, { hint: 'Remove that socket.' }));
    });
  });
}

async function connectNamed(name: string): Promise<{ connection: EngineConnection; socket: Socket }> {
  const socket = await connectTo(runtimePaths(name).control, name);
  const gone = () => new NemuError('CONNECTION', `The engine of ${name} has gone.`, { hint: `nemu logs ${name}` });
  return { connection: new EngineConnection(socket, gone), socket };
}

/** A connection to a machine that this process itself serves. @throws NemuError MACHINE */
export const connectMachine = async (name: string): Promise<EngineConnection> => (await connectNamed(name)).connection;

/**
 * @param signal gives up.
 * @throws NemuError MACHINE for one that does not run, NO_ANSWER for one whose engine hangs.
 */
export async function attachMachine(name: string | undefined, signal?: AbortSignal): Promise<AttachedMachine> {
  const known = runningMachine(name);
  const { connection, socket } = await connectNamed(known.name);
  const pid = credentialsOf(socket)?.pid ?? known.record.pid;
  let timer: NodeJS.Timeout | undefined;
  const giveUp = () => connection.close();
  signal?.addEventListener('abort', giveUp, { once: true });
  try {
    const machine = await Promise.race([
      connection.attach(ownLabel()),
      new Promise<never>((_, reject) => {
        timer = setTimeout(
          () =>
            reject(
              new NemuError('NO_ANSWER', `The engine of ${known.name} does not answer (process ${pid}).`, {
                hint: `nemu kill ${known.name} ends it.`,
              }),
            ),
          ANSWER_MS,
        );
      }),
    ]);
    const { share } = machine;
    if (!share) throw new NemuError('CONNECTION', `The engine of ${known.name} shares nothing.`);
    return { name: known.name, known, machine, share, pid, close: () => connection.close() };
  } catch (error) {
    connection.close();
    throw error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', giveUp);
  }
}
