/** QEMU's own image tool as a judge of ours, where it is installed. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';

export const QEMU_IMG = '/usr/bin/qemu-img';
export const hasQemuImg = (): boolean => existsSync(QEMU_IMG);

export function qemuImg(...args: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(QEMU_IMG, args, (error, stdout, stderr) => {
      const status = error ? (typeof error.code === 'number' ? error.code : -1) : 0;
      resolve({ status, stdout, stderr });
    });
  });
}

/** What `qemu-img check` complains of; nothing where there is no qemu-img. */
export async function qemuCheck(path: string): Promise<string> {
  if (!hasQemuImg()) return '';
  const { status, stdout, stderr } = await qemuImg('check', '-f', 'qcow2', path);
  return status === 0 ? '' : `${stdout}${stderr}`.slice(0, 2000);
}
