/** The _DSM protocol of NVDIMMs, their label areas and flush hints, with a guest that a test plays. */
import { describe, expect, test } from 'vitest';
import { AcpiNvdimm, MAX_LABEL_TRANSFER, type NvdimmLabels } from '../../../src/devices/acpi_nvdimm.ts';
import { HINT_STRIDE, NvdimmHints } from '../../../src/devices/nvdimm_hints.ts';
import { nfitStructures } from '../../../src/vmm/acpi/nfit.ts';
import { FakeMemory } from '../../support/board.ts';
import { random } from '../../support/random.ts';

const PAGE = 0x8000;
const KiB = 1024;
const FIT_HANDLE = 0x10000;
const [QUERY, READ_FIT, LABEL_SIZE, GET_LABELS, SET_LABELS] = [0, 1, 4, 5, 6];

function setUp(structures = new Uint8Array(0)) {
  const memory = new FakeMemory(0x10000);
  const state = { fit: structures, held: 0, reads: 0, told: 0, faults: [] as string[], late: [] as (() => void)[] };
  const labels = new Uint8Array(128 * KiB).map((_, at) => at * 7);
  const withLabels: NvdimmLabels = {
    labelSize: labels.length,
    readLabels: (offset, length) => labels.slice(offset, offset + length),
    writeLabels: (offset, bytes, done) => {
      labels.set(bytes, offset);
      state.late.push(() => done(0));
    },
  };
  const device = new AcpiNvdimm({
    memory,
    fit: () => state.fit,
    nvdimm: (handle) => (handle === 1 ? withLabels : handle === 2 ? { ...withLabels, labelSize: 0 } : undefined),
    hold: () => {
      state.held++;
      return () => state.held--;
    },
    notify: () => state.told++,
    fitRead: () => state.reads++,
    fault: (_, text) => state.faults.push(text),
  });
  const call = (handle: number, fn: number, args: readonly number[] = [], bytes = new Uint8Array(0), revision = 1) => {
    for (const [i, word] of [handle, revision, fn, ...args].entries()) memory.view.setUint32(PAGE + 4 * i, word, true);
    memory.bytes.set(bytes, PAGE + 12 + 4 * args.length);
    device.write(0, 4, PAGE);
    return answer();
  };
  const answer = () => {
    const length = memory.view.getUint32(PAGE, true);
    return { status: memory.view.getUint32(PAGE + 4, true), data: memory.bytes.slice(PAGE + 8, PAGE + length) };
  };
  return { device, memory, state, labels, call, answer };
}

describe('a _DSM call', () => {
  test('function 0 says what there is, of each kind of handle', () => {
    const { call } = setUp();
    const functions = [0, 1, 2, 3, FIT_HANDLE].map((handle) => call(handle, QUERY).status);
    expect(functions).toEqual([0, 0b1110001, 0, 0, 0b11]);
  });

  test('what there is not has its status', () => {
    const { call } = setUp();
    expect(call(0, 1).status).toBe(1);
    expect(call(1, 2).status).toBe(1);
    expect(call(2, LABEL_SIZE).status).toBe(1);
    expect(call(3, LABEL_SIZE).status).toBe(2);
    expect(call(FIT_HANDLE, 2).status).toBe(1);
    expect(call(1, LABEL_SIZE, [], new Uint8Array(0), 2)).toEqual({ status: 1, data: new Uint8Array(0) });
  });

  test('the port takes an address of RAM in one write, and nothing else', () => {
    const { device, state } = setUp();
    device.write(0, 4, 0xfffff000);
    expect(state.faults).toEqual(['the page of a _DSM call at 0xfffff000 is not RAM']);
    device.write(0, 2, PAGE);
    device.write(2, 2, PAGE);
    expect(device.read()).toBe(0);
  });
});

describe('the NFIT', () => {
  const structures = Uint8Array.from({ length: 5000 }, (_, at) => at * 3);

  test('is read in pieces, and known when its end was', () => {
    const { call, state } = setUp(structures);
    const first = call(FIT_HANDLE, READ_FIT, [0]);
    expect(first.data).toEqual(structures.slice(0, 4088));
    expect(call(FIT_HANDLE, READ_FIT, [4088]).data).toEqual(structures.slice(4088));
    expect(state.reads).toBe(0);
    expect(call(FIT_HANDLE, READ_FIT, [5000])).toEqual({ status: 0, data: new Uint8Array(0) });
    expect(state.reads).toBe(1);
    expect(call(FIT_HANDLE, READ_FIT, [5001]).status).toBe(3);
  });

  test('that changes meanwhile is read again from the start', () => {
    const { call, device, state } = setUp(structures);
    call(FIT_HANDLE, READ_FIT, [0]);
    device.fitChanged(true);
    expect(state.told).toBe(1);
    expect(call(FIT_HANDLE, READ_FIT, [4088]).status).toBe(0x100);
    expect(call(FIT_HANDLE, READ_FIT, [0]).status).toBe(0);
    expect(call(FIT_HANDLE, READ_FIT, [4088]).status).toBe(0);
    device.fitChanged(false);
    expect(state.told).toBe(1);
    device.reset();
    expect(call(FIT_HANDLE, READ_FIT, [5000]).status).toBe(0);
  });
});

describe('a label area', () => {
  test('has its size, and the most that a transfer takes', () => {
    const { call } = setUp();
    const { status, data } = call(1, LABEL_SIZE);
    const view = new DataView(data.buffer, data.byteOffset);
    expect([status, view.getUint32(0, true), view.getUint32(4, true)]).toEqual([0, 128 * KiB, MAX_LABEL_TRANSFER]);
    expect(MAX_LABEL_TRANSFER).toBe(4076);
  });

  test('is read and written within its bounds; a write is answered when it is lasting', () => {
    const { call, answer, labels, state } = setUp();
    expect(call(1, GET_LABELS, [100, 4076]).data).toEqual(labels.slice(100, 4176));
    expect(call(1, GET_LABELS, [128 * KiB - 8, 8]).data).toEqual(labels.slice(-8));
    call(1, SET_LABELS, [64, 4], Uint8Array.of(1, 2, 3, 4));
    expect([state.held, state.late.length]).toEqual([1, 1]);
    state.late.shift()?.();
    expect([state.held, answer().status]).toEqual([0, 0]);
    expect([...labels.slice(64, 68)]).toEqual([1, 2, 3, 4]);
    for (const fn of [GET_LABELS, SET_LABELS]) {
      expect(call(1, fn, [128 * KiB - 8, 9]).status).toBe(3);
      expect(call(1, fn, [0xffffffff, 0xffffffff]).status).toBe(3);
      expect(call(1, fn, [0, MAX_LABEL_TRANSFER + 1]).status).toBe(3);
    }
    expect(state.late).toEqual([]);
  });

  test('withstands any page', () => {
    const { memory, device, state } = setUp(new Uint8Array(100));
    const pick = random(5);
    for (let i = 0; i < 20_000; i++) {
      const words = [pick(4) ? pick(4) : FIT_HANDLE, pick(5) ? 1 : pick(3), pick(8), pick(2 ** 32), pick(2 ** 32)];
      if (pick(2)) words[3] = pick(150);
      if (pick(2)) words[4] = pick(5000);
      for (const [at, word] of words.entries()) memory.view.setUint32(PAGE + 4 * at, word, true);
      device.write(0, 4, PAGE);
      for (const done of state.late.splice(0)) done();
      const length = memory.view.getUint32(PAGE, true);
      if (length < 8 || length > 4096 || state.held !== 0) throw new Error(`${words} gave ${length} bytes`);
    }
  });
});

describe('flush hints', () => {
  test('a write of eight bytes to an address flushes its NVDIMM once, and is held', () => {
    const log: string[] = [];
    const waiting: (() => void)[] = [];
    const hints = new NvdimmHints({
      slots: 3,
      flush: (slot, done) => {
        log.push(`flush ${slot}`);
        waiting.push(done);
      },
      hold: () => {
        log.push('hold');
        return () => log.push('release');
      },
    });
    expect(hints.size).toBe(3 * HINT_STRIDE);
    hints.write(2 * HINT_STRIDE);
    hints.write(2 * HINT_STRIDE + 4);
    expect(log).toEqual(['hold', 'flush 2']);
    waiting[0]();
    expect(log).toEqual(['hold', 'flush 2', 'release']);
    expect(hints.read()).toBe(0);
  });
});

describe('NFIT structures', () => {
  /** Type and bytes of each. */
  const split = (all: Uint8Array): [number, Buffer][] => {
    const bytes = Buffer.from(all);
    const list: [number, Buffer][] = [];
    for (let at = 0; at < bytes.length; at += bytes.readUInt16LE(at + 2)) {
      list.push([bytes.readUInt16LE(at), bytes.subarray(at, at + bytes.readUInt16LE(at + 2))]);
    }
    return list;
  };

  test('say where an NVDIMM is, what it is, and where to flush it', () => {
    const nvdimm = { slot: 2, address: 0x1_4000_0000, size: 0x1000_0000, node: 3, readonly: false, hint: 0xfef00080 };
    const list = split(nfitStructures([nvdimm], 'none'));
    expect(list.map(([type, { length }]) => [type, length])).toEqual([
      ...[
        [7, 16],
        [0, 56],
        [1, 48],
        [4, 80],
        [6, 24],
      ],
    ]);
    const [capabilities, range, mapping, control, hints] = list.map(([, bytes]) => bytes);
    expect([capabilities[4], capabilities.readUInt32LE(8)]).toEqual([1, 0]);
    expect([range.readUInt16LE(4), range.readUInt16LE(6), range.readUInt32LE(12)]).toEqual([6, 3, 3]);
    expect(range.toString('hex', 16, 32)).toBe('79d3f066f3b47440ac430d3318b78cdb');
    expect([32, 40, 48].map((at) => range.readBigUInt64LE(at))).toEqual([0x1_4000_0000n, 0x1000_0000n, 0x8008n]);
    expect([mapping.readUInt32LE(4), mapping.readUInt16LE(12), mapping.readUInt16LE(14)]).toEqual([3, 6, 7]);
    expect([mapping.readBigUInt64LE(16), mapping.readUInt16LE(42), mapping.readUInt16LE(44)]).toEqual([
      ...[0x1000_0000n, 1, 0],
    ]);
    expect([control.readUInt16LE(4), control.readUInt16LE(6), control.readUInt16LE(28)]).toEqual([7, 0x8086, 0x0301]);
    expect([hints.readUInt32LE(4), hints.readUInt16LE(8), hints.readBigUInt64LE(16)]).toEqual([3, 1, 0xfef00080n]);
  });

  test('one that cannot be written is not armed, and has no hint', () => {
    const nvdimm = { slot: 0, address: 0x1_0000_0000, size: 0x1000_0000, node: 0, readonly: true, hint: undefined };
    const list = split(nfitStructures([nvdimm], 'cpu'));
    expect(list.map(([type]) => type)).toEqual([7, 0, 1, 4]);
    expect(list[0][1].readUInt32LE(8)).toBe(3);
    expect(list[2][1].readUInt16LE(44)).toBe(8);
  });
});
