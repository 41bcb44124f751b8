/**
 * Starts a VMM, plugs a device of each kind into its guest over QMP, and prints how long each took until the guest had it
 * online, in milliseconds as JSON, by kind in the order of the rounds. Where stock kernels need the lab it runs in there, beside both VMMs, so that nothing
 * of the way to the lab is measured. Arguments: socket, folder for files, rounds, then the VMM's command line.
 */
import { spawn } from 'node:child_process';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

const [socketPath, folder, rounds, program, ...args] = process.argv.slice(2);
const ROUNDS = Number(rounds);
const MiB = 2 ** 20;
/** Blocks of 128 MiB that Linux onlines of a DIMM of 1 GiB. */
const BLOCKS = 8;

const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
let said = '';
let errors = '';
let heard = () => {};
child.stdout.on('data', (bytes: Buffer) => {
  said += bytes.toString('latin1');
  heard();
});
child.stderr.on('data', (bytes: Buffer) => {
  errors += bytes;
});
child.on('close', (status) => {
  if (status !== 0 && process.exitCode === undefined) {
    process.stderr.write(`${program} ended with ${status}:\n${said}${errors}`);
    process.exit(1);
  }
});

/** Until the guest has said a line so often. */
async function until(line: string, times = 1): Promise<void> {
  while (said.split(line).length - 1 < times) {
    await new Promise<void>((resolve) => {
      heard = resolve;
    });
  }
}

class Qmp {
  readonly #socket: Socket;
  readonly #waiting: ((answer: { return?: unknown; error?: { desc: string } }) => void)[] = [];

  constructor(socket: Socket) {
    this.#socket = socket;
    createInterface({ input: socket }).on('line', (line) => {
      const message = JSON.parse(line);
      if ('return' in message || 'error' in message) this.#waiting.shift()?.(message);
    });
  }

  async call(execute: string, parameters: object = {}): Promise<unknown> {
    const answer = await new Promise<{ return?: unknown; error?: { desc: string } }>((resolve) => {
      this.#waiting.push(resolve);
      this.#socket.write(`${JSON.stringify({ execute, arguments: parameters })}\n`);
    });
    if (answer.error) throw new Error(`${execute}: ${answer.error.desc}`);
    return answer.return;
  }
}

async function connected(): Promise<Socket> {
  for (;;) {
    const socket = connect(socketPath);
    const opened = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    });
    if (opened) return socket;
    await sleep(50);
  }
}

const qmp = new Qmp(await connected());
await qmp.call('qmp_capabilities');
await until('READY');
// What the guest still does after its start is not to be measured.
await sleep(1000);

const took: Record<string, number[]> = {};
async function measure(what: string, mark: string, times: number, plug: () => Promise<unknown>): Promise<void> {
  const begin = performance.now();
  await plug();
  await until(mark, times);
  took[what] ??= [];
  took[what].push(performance.now() - begin);
  await sleep(500);
}

interface HotpluggableCpu {
  readonly type: string;
  readonly props: object;
  readonly 'qom-path'?: string;
}
const cpus = (await qmp.call('query-hotpluggable-cpus')) as HotpluggableCpu[];
// QEMU lists them from the last one on.
const free = cpus.filter((cpu) => cpu['qom-path'] === undefined).toReversed();
for (let index = 0; index < ROUNDS; index++) {
  const n = index + 1;
  await measure('a DIMM of 1 GiB', 'ONLINE memory', n * BLOCKS, async () => {
    await qmp.call('object-add', { 'qom-type': 'memory-backend-ram', id: `ram-${n}`, size: 1024 * MiB });
    await qmp.call('device_add', { driver: 'pc-dimm', id: `dimm-${n}`, memdev: `ram-${n}` });
  });
  await measure('virtio-blk at a PCIe port', `ONLINE block vd${'abcdef'[index]}`, 1, async () => {
    const file = { driver: 'file', filename: join(folder, `disk${n}.img`) };
    await qmp.call('blockdev-add', { driver: 'raw', 'node-name': `node-${n}`, file });
    await qmp.call('device_add', {
      ...{ driver: 'virtio-blk-pci', id: `disk-${n}`, drive: `node-${n}`, bus: `rp${index}` },
    });
  });
  await measure('an NVDIMM of 128 MiB', `ONLINE block pmem${index}`, 1, async () => {
    const path = join(folder, `pm${n}.img`);
    const backend = { 'qom-type': 'memory-backend-file', id: `pm-${n}`, 'mem-path': path };
    await qmp.call('object-add', { ...backend, size: 128 * MiB, share: true });
    await qmp.call('device_add', { driver: 'nvdimm', id: `nvdimm-${n}`, memdev: `pm-${n}` });
  });
  await measure('a CPU', 'ONLINE cpu', n, () =>
    qmp.call('device_add', { driver: free[index].type, id: `cpu-${n}`, ...free[index].props }),
  );
}
process.exitCode = 0;
process.stdout.write(`${JSON.stringify(took)}\n`);
await qmp.call('quit').catch(() => {});
process.exit(0);
