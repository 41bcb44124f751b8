/** KVM's interrupt controllers, read from states as KVM gives them. */
import { expect, test } from 'vitest';
import { readIoapic, readLapic, readPic } from '../../../src/vmm/x86/interrupts.ts';

test("the I/O APIC's pins, as Linux sets them up", () => {
  const state = new DataView(new ArrayBuffer(512));
  state.setUint32(12, 0, true);
  state.setUint32(16, 1 << 20, true);
  for (let pin = 0; pin < 24; pin++) state.setBigUint64(24 + 8 * pin, 0x10000n, true);
  // IRQ 4 as an edge to APIC 3; PIRQ E, low level, to logical APICs 1 and 2, which is being served.
  state.setBigUint64(24 + 8 * 4, 0x0300_0000_0000_0024n, true);
  state.setBigUint64(24 + 8 * 20, 0x0300_0000_0000_e931n, true);
  const { pins } = readIoapic(state);
  expect(pins).toHaveLength(24);
  expect(pins[4]).toEqual({
    ...{ pin: 4, raw: '0x0300000000000024', vector: 0x24, mode: 'fixed', masked: false, level: false },
    ...{ activeLow: false, remoteIrr: false, destination: 3, logical: false, pending: false },
  });
  expect(pins[20]).toMatchObject({
    ...{ vector: 0x31, mode: 'lowest', level: true, activeLow: true, remoteIrr: true, logical: true, pending: true },
  });
  expect(pins.filter(({ masked }) => masked)).toHaveLength(22);
});

test("a PIC's registers", () => {
  const state = new DataView(Uint8Array.of(0, 1, 0xb8, 2, 3, 8, 0, 0, 0, 0, 0, 0, 1, 0, 0x20, 0xf8).buffer);
  expect(readPic(state, 'master')).toEqual({
    ...{ name: 'master', irr: 1, imr: 0xb8, isr: 2, highest: 3, base: 8, elcr: 0x20, specialFullyNested: true },
  });
});

test("a local APIC's vectors, timer and local entries", () => {
  const state = new DataView(new ArrayBuffer(0x400));
  const put = (at: number, value: number) => state.setUint32(at, value, true);
  put(0x80, 0x20);
  put(0xf0, 0x1ff);
  put(0x100 + 0x10 * 7, 1 << 12);
  put(0x200 + 0x10, 1 << 2);
  put(0x200 + 0x10 * 7, 1 << 31);
  put(0x180 + 0x10, 1 << 2);
  put(0x320, 0x400ec);
  put(0x350, 0x700);
  put(0x360, 0x10400);
  put(0x370, 0xfe);
  put(0x380, 1000);
  put(0x390, 10);
  const report = readLapic(state, 2, 5, 0xfee00d00n);
  expect(report).toMatchObject({
    ...{ vcpu: 2, apicId: 5, x2apic: true, enabled: true, taskPriority: 0x20, spurious: 0xff },
    ...{ inService: [0xec], requested: [34, 0xff], levels: [34] },
    timer: { mode: 'TSC-deadline', divide: 2, initial: 1000, current: 10 },
  });
  const entry = (name: string) => report.lvt.find((each) => each.name === name);
  expect(entry('LINT0')).toMatchObject({ mode: 'ExtINT', masked: false });
  expect(entry('LINT1')).toMatchObject({ mode: 'NMI', masked: true });
  expect(entry('error')).toMatchObject({ mode: 'fixed', vector: 0xfe, masked: false });
  // SDM volume 3, figure 11-10.
  for (const [register, divide] of [
    ...[
      [0, 2],
      [1, 4],
      [2, 8],
      [3, 16],
    ],
    ...[
      [8, 32],
      [9, 64],
      [10, 128],
      [11, 1],
    ],
  ]) {
    put(0x3e0, register);
    expect(readLapic(state, 0, 0, 0n).timer.divide, String(register)).toBe(divide);
  }
});
