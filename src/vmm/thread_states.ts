import { readdirSync, readFileSync } from 'node:fs';

/** Of x86-64 and AArch64: system calls that our threads wait in. */
const SYSCALLS: Readonly<Record<string, string>> =
  process.arch === 'arm64'
    ? { 29: 'ioctl', 63: 'read', 64: 'write', 22: 'epoll_pwait', 82: 'fsync', 98: 'futex', 227: 'msync' }
    : {
        0: 'read',
        1: 'write',
        16: 'ioctl',
        26: 'msync',
        74: 'fsync',
        202: 'futex',
        232: 'epoll_wait',
        281: 'epoll_pwait',
      };

const read = (path: string): string => {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    // It ended meanwhile, or the kernel does not tell.
    return '';
  }
};

/**
 * What the engine's threads of this process are doing, by proc(5): for the message about one that does not answer.
 * @returns such as `machine: in ioctl(0x1d, 0x4140aecd); vcpu0: running`.
 */
export function engineThreadStates(): string {
  const states: string[] = [];
  for (const tid of readdirSync('/proc/self/task')) {
    const folder = `/proc/self/task/${tid}`;
    const name = read(`${folder}/comm`);
    if (!/^(machine|vcpu\d+)$/.test(name)) continue;
    const [call, first, second] = read(`${folder}/syscall`).split(' ');
    const known = SYSCALLS[call] ?? (/^\d+$/.test(call) ? `system call ${call}` : undefined);
    states.push(`${name}: ${known ? `in ${known}(${first}, ${second})` : call || 'gone'}`);
  }
  return states.sort().join('; ');
}
