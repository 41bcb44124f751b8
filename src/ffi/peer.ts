import koffi from 'koffi';
import { check } from './libc.ts';

const getsockopt = koffi.load('libc.so.6').func('int getsockopt(int, int, int, void*, void*)');

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;

export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** Who is at the other end of a connected unix socket, as the kernel knows it (unix(7), SO_PEERCRED). @throws SystemError */
export function peerCredentials(fd: number): PeerCredentials {
  const ucred = Buffer.alloc(12);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(ucred.length);
  check(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ucred, length), 'getsockopt', fd, 'SO_PEERCRED');
  return { pid: ucred.readInt32LE(0), uid: ucred.readUInt32LE(4), gid: ucred.readUInt32LE(8) };
}
