/** NVDIMMs under a guest that a test plays: flushes through the real mailbox, _FIT, coming and going. */
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, onTestFinished, test } from 'vitest';
import type { MachineInput } from '../../src/client/description.ts';
import type { LiveRequest } from '../../src/client/live.ts';
import type { MachineEvent } from '../../src/client/machine_client.ts';
import { hostHasKvm, microPlace } from '../support/micro.ts';
import { RegisterGuest } from '../support/register_guest.ts';

const { boot } = microPlace();
const folder = mkdtempSync(join(tmpdir(), 'nemu-nvdimm-'));
afterAll(() => rmSync(folder, { recursive: true }));
let count = 0;
const newFile = () => join(folder, `pm-${count++}.img`);

const MiB = 2 ** 20;
const KiB = 1024;
const GIB4 = 2 ** 32;
const [PORT, PAGE, FIT_HANDLE] = [0xa18, 0x7_0000, 0x10000];
const HINTS = 0xfef00000;
const GPE0_STATUS = 0x620;
/** The page directory of the third GiB, in the page tables that the loader makes. */
const DIRECTORY = 0x9000 + 4 * 0x1000;
/** Where the first 2 MiB of the room above RAM are mapped for the guest. */
const WINDOW = 0x8000_0000;

class Guest {
  readonly regs: RegisterGuest;
  readonly requests: LiveRequest[] = [];
  readonly #waiting: (() => void)[] = [];

  private constructor(regs: RegisterGuest) {
    this.regs = regs;
    regs.machine.onEvent((event: MachineEvent) => {
      if (event.type !== 'request') return;
      this.requests.push(event.request);
      for (const wake of this.#waiting.splice(0)) wake();
    });
  }

  static async start(more: Partial<MachineInput>): Promise<Guest> {
    const guest = new Guest(await RegisterGuest.start(boot, { memory: { size: '16M', max: '1G', slots: 3 }, ...more }));
    onTestFinished(() => guest.machine.close());
    return guest;
  }

  get machine() {
    return this.regs.machine;
  }

  async stage(device: string, stage: string): Promise<LiveRequest> {
    for (;;) {
      const last = this.requests.at(-1);
      if (last?.device.id === device && last.stage === stage) return last;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  async storeWord(address: number, value: number): Promise<void> {
    for (let i = 0; i < 4; i++) await this.regs.store8(address + i, (value >>> (8 * i)) & 0xff);
  }

  /** Maps guest-physical 4 GiB and up at WINDOW. */
  async mapWindow(): Promise<void> {
    await this.storeWord(DIRECTORY, 0x83);
    await this.storeWord(DIRECTORY + 4, GIB4 / 2 ** 32);
    // The old translation was never used.
  }

  async dsm(handle: number, fn: number, ...args: readonly number[]): Promise<{ status: number; data: Buffer }> {
    for (const [i, word] of [handle, 1, fn, ...args].entries()) await this.storeWord(PAGE + 4 * i, word);
    await this.regs.out32(PORT, PAGE);
    const page = Buffer.from(await this.machine.readMemory(PAGE, 4096));
    return { status: page.readUInt32LE(4), data: page.subarray(8, page.readUInt32LE(0)) };
  }

  /** All of _FIT. */
  async fit(): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for (;;) {
      const { data } = await this.dsm(FIT_HANDLE, 1, Buffer.concat(pieces).length);
      if (data.length === 0) return Buffer.concat(pieces);
      pieces.push(Buffer.from(data));
    }
  }

  async flushes(): Promise<number[]> {
    return (await this.machine.plugged()).nvdimms.map(({ flushes }) => flushes);
  }
}

describe('an NVDIMM of the start', () => {
  test('is made, stored to, flushed before the guest goes on, and there again for the next machine', async () => {
    const file = newFile();
    const more = { memory: { size: '16M' }, nvdimms: [{ file, size: '4M', labelSize: '128K' }] };
    const guest = await Guest.start(more);
    expect(guest.machine.description.nvdimms[0].size).toBe(4 * MiB);
    expect(statSync(file).size).toBe(4 * MiB + 128 * KiB);
    await guest.mapWindow();
    for (const [at, byte] of Buffer.from('lasting').entries()) await guest.regs.store8(WINDOW + 0x1000 + at, byte);
    expect(await guest.flushes()).toEqual([0]);
    await guest.regs.store8(HINTS, 1);
    expect(await guest.flushes()).toEqual([1]);
    if (hostHasKvm) expect(readFileSync(file).toString('latin1', 0x1000, 0x1007)).toBe('lasting');
    expect(Buffer.from(await guest.machine.readMemory(GIB4 + 0x1000, 7)).toString()).toBe('lasting');
    // A label, lasting when the call comes back.
    expect((await guest.dsm(1, 4)).data.readUInt32LE(0)).toBe(128 * KiB);
    expect((await guest.dsm(1, 6, 256, 4, 0x64636261)).status).toBe(0);
    expect(await guest.flushes()).toEqual([2]);
    await expect(boot(() => {}, more)).rejects.toMatchObject({
      code: 'NVDIMM_FILE',
      message: expect.stringContaining('is in use'),
    });
    await guest.machine.close();
    expect(readFileSync(file).toString('latin1', 4 * MiB + 128 * KiB - 128 * KiB + 256, 4 * MiB + 260)).toBe('abcd');

    const next = await Guest.start({ ...more, nvdimms: [{ file, labelSize: '128K' }] });
    expect((await next.dsm(1, 5, 256, 4)).data.toString()).toBe('abcd');
    expect(Buffer.from(await next.machine.readMemory(GIB4 + 0x1000, 7)).toString()).toBe('lasting');
    await next.machine.close();
  });

  test('that is read-only, or private, leaves its file alone', async () => {
    for (const traits of [{ readonly: true }, { share: false }]) {
      const file = newFile();
      writeFileSync(file, 'untouched');
      truncateSync(file, 2 * MiB + 128 * KiB);
      const guest = await Guest.start({
        memory: { size: '16M' },
        nvdimms: [{ file, labelSize: '128K', ...traits }],
      });
      await guest.mapWindow();
      await guest.regs.store8(WINDOW, 0x55);
      const memory = Buffer.from(await guest.machine.readMemory(GIB4, 9)).toString('latin1');
      expect(memory).toBe('readonly' in traits ? 'untouched' : 'Untouched');
      expect((await guest.dsm(1, 6, 0, 4, 1)).status).toBe(0);
      expect((await guest.dsm(1, 5, 0, 4)).data.readUInt32LE(0)).toBe(1);
      await guest.machine.close();
      expect(readFileSync(file).subarray(0, 9).toString()).toBe('untouched');
      expect(
        readFileSync(file)
          .subarray(2 * MiB)
          .every((byte) => byte === 0),
      ).toBe(true);
    }
  });

  test('with a file that is no such thing is refused with what to do', async () => {
    const refused = (nvdimm: object) => expect(boot(() => {}, { nvdimms: [nvdimm as { file: string }] })).rejects;
    await refused({ file: newFile() }).toMatchObject({ hint: 'Say how large it is to be: size=256M.' });
    await refused({ file: folder }).toMatchObject({ code: 'NVDIMM_FILE' });
    await refused({ file: '/nowhere/pm.img', size: '2M' }).toMatchObject({
      hint: 'Name a file in a folder that exists.',
    });
    const file = newFile();
    writeFileSync(file, 'x');
    truncateSync(file, 3 * MiB);
    await refused({ file, size: '4M' }).toThrow('has 3145728 bytes; 4 MiB of memory are 4194304.');
    await refused({ file, labelSize: '3M' }).toThrow('that is no multiple of 4096 of 2 MiB or more');
    await refused({ file, size: '3M', labelSize: '64K' }).toMatchObject({ code: 'DESCRIPTION' });
  });
});

describe('an NVDIMM that is plugged', () => {
  test('is there when the guest has read the NFIT, and gone when it has read it without', async () => {
    const file = newFile();
    const guest = await Guest.start({});
    const { machine, regs } = guest;
    expect((await guest.fit()).length).toBe(16);
    const plugged = machine.plug({ kind: 'nvdimm', file, size: '8M', id: 'pm' });
    await guest.stage('pm', 'notified');
    expect((await regs.in8(GPE0_STATUS)) & (1 << 4)).not.toBe(0);
    const structures = await guest.fit();
    expect(structures.length).toBe(16 + 56 + 48 + 80 + 24);
    expect(structures.readBigUInt64LE(16 + 32)).toBe(BigInt(GIB4));
    expect(await plugged).toMatchObject({ stage: 'online', device: { slot: 0, size: 8 * MiB, file } });
    await guest.mapWindow();
    await regs.store8(WINDOW + 5, 0x77);
    expect((await machine.memoryMap()).some(({ dimm, size }) => dimm === 'pm' && size === 8 * MiB)).toBe(true);

    // DIMMs stand beside it.
    const dimm = machine.plug({ kind: 'memory', size: '128M' });
    expect((await guest.stage('dimm1', 'notified')).device).toMatchObject({ address: GIB4 + 128 * MiB });
    await regs.out32(0xa00, 1);
    await regs.out32(0xa04, 1);
    await regs.out32(0xa08, 0);
    await dimm;

    await expect(machine.unplug('pm', { force: true })).rejects.toMatchObject({ code: 'FORCE' });
    await expect(machine.unplug('pm', { timeoutMs: 50 })).rejects.toMatchObject({
      code: 'GUEST_TIMEOUT',
      message: expect.stringContaining('it still has it. In the guest, unmount what is on NVDIMMs'),
    });
    // It is as it was.
    expect((await guest.fit()).length).toBe(structures.length);
    const removed = machine.unplug('pm');
    expect((await guest.stage('pm', 'notified')).guest).toContain('echo ACPI0012:00 >unbind');
    await expect(machine.plug({ kind: 'nvdimm', file: newFile(), size: '2M' })).rejects.toMatchObject({ code: 'BUSY' });
    expect((await guest.fit()).length).toBe(16);
    expect(await removed).toMatchObject({ stage: 'removed' });
    await expect(machine.readMemory(GIB4, 8)).rejects.toMatchObject({ code: 'ADDRESS' });
    expect(readFileSync(file)[5]).toBe(0x77);
    // The file is free, and so is the place.
    const again = machine.plug({ kind: 'nvdimm', file });
    expect((await guest.stage('nvdimm0', 'notified')).device).toMatchObject({ slot: 0, address: GIB4 });
    await guest.fit();
    await again;
    expect((await machine.readMemory(GIB4 + 5, 1))[0]).toBe(0x77);
    await machine.close();
  });

  test('leaves at once when the guest never read of it, and waits for news that it was told of', async () => {
    const first = newFile();
    const guest = await Guest.start({ nvdimms: [{ file: first, size: '2M' }] });
    const { machine } = guest;
    await expect(machine.plug({ kind: 'nvdimm', file: first })).rejects.toMatchObject({
      code: 'NVDIMM_FILE',
      message: expect.stringContaining('is in use: it is nvdimm0 of this machine.'),
    });
    const ignored = machine.plug({ kind: 'nvdimm', file: newFile(), size: '2M' }, { timeoutMs: 50 });
    await expect(ignored).rejects.toMatchObject({ code: 'GUEST_TIMEOUT' });
    // What it reads next is what it was told of, and says nothing of the other one.
    await expect(machine.unplug('nvdimm0')).rejects.toMatchObject({ code: 'BUSY' });
    expect(await machine.unplug('nvdimm1')).toMatchObject({ stage: 'removed' });
    expect((await machine.plugged()).nvdimms.map(({ id }) => id)).toEqual(['nvdimm0']);
    await machine.close();
  });

  test('stays through a reset, which settles what was asked', async () => {
    const guest = await Guest.start({ onReset: 'reset' });
    const { machine } = guest;
    const plugged = machine.plug({ kind: 'nvdimm', file: newFile(), size: '2M' });
    await guest.stage('nvdimm0', 'notified');
    await machine.reset();
    expect(await plugged).toMatchObject({ stage: 'online' });
    guest.regs.forget();
    expect((await guest.fit()).length).toBeGreaterThan(16);
    const going = machine.unplug('nvdimm0');
    await guest.stage('nvdimm0', 'notified');
    await machine.reset();
    expect(await going).toMatchObject({ stage: 'removed' });
    guest.regs.forget();
    expect(await machine.plugged()).toMatchObject({ nvdimms: [] });
    await machine.close();
  });

  test('is refused with the host’s reason, and its place is free again', async () => {
    const guest = await Guest.start({});
    const file = newFile();
    const taken = await Guest.start({ nvdimms: [{ file, size: '2M' }] });
    await expect(guest.machine.plug({ kind: 'nvdimm', file })).rejects.toThrow('is in use');
    await taken.machine.close();
    await expect(guest.machine.plug({ kind: 'nvdimm', file: newFile(), size: '2G' })).rejects.toMatchObject({
      code: 'MEMORY_LIMIT',
    });
    const plugged = guest.machine.plug({ kind: 'nvdimm', file });
    await guest.stage('nvdimm0', 'notified');
    await guest.fit();
    await plugged;
    // Closing takes what is pending along.
    const going = expect(guest.machine.unplug('nvdimm0')).rejects.toThrow();
    await guest.stage('nvdimm0', 'notified');
    await guest.machine.close();
    await going;
  });
});
