import { describe, expect, test } from 'vitest';
import { kvm_run } from '../../../src/ffi/kvm/common.ts';
import { decodeExit, describeFatalExit, exitName, newExit } from '../../../src/vmm/exit.ts';

const page = (fill: (run: ReturnType<typeof kvm_run.on>, view: DataView) => void) => {
  const view = new DataView(new ArrayBuffer(4096));
  fill(kvm_run.on(view), view);
  return view;
};

const reasonPage = (reason: number) =>
  page((run) => {
    run.exit_reason = reason;
  });

describe('a kvm_run page becomes an exit', () => {
  test('port write', () => {
    const view = page((run) => {
      run.exit_reason = 2;
      run['io.direction'] = 1;
      run['io.size'] = 2;
      run['io.port'] = 0xcf8;
      run['io.count'] = 3;
      run['io.data_offset'] = 4096n;
    });
    expect(decodeExit(view, newExit())).toEqual({
      kind: 'io',
      reason: 2,
      isWrite: true,
      address: 0xcf8,
      size: 2,
      count: 3,
      dataOffset: 4096,
    });
  });

  test('memory read above 4 GiB', () => {
    const view = page((run) => {
      run.exit_reason = 6;
      run['mmio.phys_addr'] = 0x12_3456_7000n;
      run['mmio.len'] = 8;
    });
    expect(decodeExit(view, newExit())).toMatchObject({
      kind: 'mmio',
      isWrite: false,
      address: 0x12_3456_7000,
      size: 8,
    });
  });

  test('everything else is for the machine thread', () => {
    for (const reason of [0, 8, 9, 17, 24]) {
      expect(decodeExit(reasonPage(reason), newExit())).toMatchObject({ kind: 'other', reason });
    }
  });
});

describe('why a vCPU cannot go on, in words', () => {
  test('an instruction that KVM cannot emulate is shown', () => {
    const view = page((run) => {
      run.exit_reason = 17;
      run['internal.suberror'] = 1;
      run['internal.ndata'] = 4;
      run['emulation_failure.flags'] = 1n;
      run['emulation_failure.insn_size'] = 2;
      run['emulation_failure.insn_bytes'].set(0, 0xf3);
      run['emulation_failure.insn_bytes'].set(1, 0x0f);
    });
    expect(describeFatalExit(view)).toBe(
      'KVM reported an internal error (emulation failure): it cannot emulate the instruction f3 0f',
    );
  });

  test.each([
    [8, 'the guest triple-faulted'],
    [9, 'the processor refused to enter the guest (hardware reason 0x0)'],
    [27, 'KVM exit HYPERV, which this machine does not handle'],
  ])('reason %i', (reason, text) => {
    expect(describeFatalExit(reasonPage(reason))).toBe(text);
  });

  test('names are the header’s', () => {
    expect([exitName(2), exitName(6), exitName(99)]).toEqual(['IO', 'MMIO', 'reason 99']);
  });
});
