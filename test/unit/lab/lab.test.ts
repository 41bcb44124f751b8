import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findProgram } from '../../../src/lab/command.ts';
import { findGuest } from '../../../src/lab/guest.ts';
import { type Lab, startLab } from '../../../src/lab/lab.ts';

const able =
  process.arch === 'x64' &&
  findProgram('qemu-system-x86_64') !== undefined &&
  (await findGuest('6.12-full').then(
    () => true,
    () => false,
  ));

/** An engine that creates a virtual machine and a vCPU through koffi, tells of it, and echoes. */
const ENGINE = `
import koffi from 'koffi';
import { openSync } from 'node:fs';
const ioctl = koffi.load('libc.so.6').func('int ioctl(int fd, unsigned long request, unsigned long argument)');
export function start({ open, options }) {
  const kvm = openSync('/dev/kvm', 'r+');
  const vm = ioctl(kvm, 0xae01, 0);
  const port = open();
  port.write(JSON.stringify({ api: ioctl(kvm, 0xae00, 0), vcpu: ioctl(vm, 0xae41, 0) > 0, options }) + '\\n');
  port.on('data', (bytes) => port.write(bytes));
}
`;

describe.skipIf(!able)('the lab (needs QEMU and the full 6.12 kernel)', () => {
  let lab: Lab;
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nemu-test-'));
    lab = await startLab();
  });

  afterAll(async () => {
    await lab?.close();
    await rm(folder, { recursive: true, force: true });
  });

  it('runs programs with input, output, errors and status', async () => {
    const result = await lab.exec('cat; echo oops >&2; exit 7', { input: Buffer.from([0, 1, 255]) });
    expect(result.status).toBe(7);
    expect([...result.stdout]).toEqual([0, 1, 255]);
    expect(result.stderr.toString()).toBe('oops\n');
    expect((await lab.exec('kill -9 $$')).status).toBe(137);
    await expect(lab.exec(['/no/such/program'])).rejects.toMatchObject({ code: 'LAB_REQUEST' });
  });

  it('knows the time and has the host and its programs', async () => {
    const seconds = Number((await lab.exec('date +%s')).stdout.toString());
    expect(Math.abs(seconds - Date.now() / 1000)).toBeLessThan(5);
    const source = import.meta.filename;
    expect((await lab.exec(['cat', `/host${source}`])).stdout.equals(await readFile(source))).toBe(true);
    expect((await lab.exec(['touch', `/host${source}`])).status).not.toBe(0);
    const version = await lab.exec(['/usr/bin/env', 'bash', '-c', 'echo $BASH_VERSION'], { hostRoot: true });
    expect(version.stdout.toString()).toMatch(/^\d+\./);
  });

  it('takes files', async () => {
    const bytes = Buffer.alloc(300_000, 'nemu');
    await lab.put('/tmp/a/b', bytes, 0o755);
    const { stdout } = await lab.exec('cat /tmp/a/b; ls -l /tmp/a/b | cut -c1-10 >&2');
    expect(stdout.equals(bytes)).toBe(true);
  });

  it('has KVM, and an engine behind its port', async () => {
    const bundle = join(folder, 'engine.mjs');
    await writeFile(bundle, ENGINE);
    const first = once(lab.port, 'data');
    await lab.startEngine(bundle, { x: 1 });
    const [hello] = (await first) as [Buffer];
    expect(JSON.parse(hello.toString())).toEqual({ api: 12, vcpu: true, options: { x: 1 } });
    const second = once(lab.port, 'data');
    lab.port.write('echo');
    expect(((await second) as [Buffer])[0].toString()).toBe('echo');
  });

  it('has a shell with a size', async () => {
    const shell = lab.shell({ rows: 31, columns: 97 });
    let text = '';
    shell.port.on('data', (bytes: Buffer) => {
      text += bytes.toString();
    });
    shell.port.write('stty size; exit 4\n');
    expect(await shell.exited).toBe(4);
    expect(text).toContain('31 97');
  });

  it('says how QEMU ended, and ends with its parent', async () => {
    const script = join(folder, 'parent.mjs');
    const source = new URL('../../../src/lab/lab.ts', import.meta.url).href;
    await writeFile(
      script,
      `import { startLab } from ${JSON.stringify(source)};
       const lab = await startLab();
       console.log(lab.pid);
       process.kill(process.pid, 'SIGKILL');`,
    );
    const parent = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [bytes] = (await once(parent.stdout, 'data')) as [Buffer];
    const pid = Number(bytes.toString());
    await once(parent, 'close');
    await expect.poll(() => isRunning(pid)).toBe(false);

    const other = await startLab();
    const pending = other.exec('sleep 1000');
    process.kill(other.pid!, 'SIGKILL');
    await expect(pending).rejects.toMatchObject({ code: 'LAB_ENDED', message: expect.stringContaining('SIGKILL') });
    await other.close();
  });
});

/** False for a zombie too: one that nobody waits for stays in some containers. */
async function isRunning(pid: number): Promise<boolean> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return text !== '' && !/\) [ZX] /.test(text);
}
