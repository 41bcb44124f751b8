/** Interrupt controllers as a Linux guest leaves them. */
import type { InterruptReport } from '../../src/client/interrupts.ts';
import { readIoapic, readLapic, readPic } from '../../src/vmm/x86/interrupts.ts';

export function interruptReport(vcpus: number): InterruptReport {
  const ioapic = new DataView(new ArrayBuffer(512));
  for (let pin = 0; pin < 24; pin++) ioapic.setBigUint64(24 + 8 * pin, 0x10000n, true);
  ioapic.setBigUint64(24 + 8 * 4, 0x0100_0000_0000_0024n, true);
  ioapic.setBigUint64(24 + 8 * 20, 0x0300_0000_0000_e931n, true);
  const pic = new DataView(Uint8Array.of(0, 1, 0xff, 0, 0, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf8).buffer);
  const lapics = Array.from({ length: vcpus }, (_, index) => {
    const state = new DataView(new ArrayBuffer(0x400));
    state.setUint32(0xf0, 0x1ff, true);
    state.setUint32(0x200 + 0x10 * 7, 1 << 12, true);
    state.setUint32(0x320, 0x400ec, true);
    for (const masked of [0x330, 0x340, 0x350]) state.setUint32(masked, 0x10000, true);
    state.setUint32(0x360, index === 0 ? 0x400 : 0x10400, true);
    state.setUint32(0x370, 0xfe, true);
    return readLapic(state, index, index, 0xfee00c00n);
  });
  return { ioapic: readIoapic(ioapic), pics: [readPic(pic, 'master'), readPic(pic, 'slave')], lapics };
}
