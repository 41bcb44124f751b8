import { describe, expect, test } from 'vitest';
import { planBoot } from '../../../src/vmm/boot/plan.ts';
import { bootRequest, buildBzImage, GiB, MiB, pcMemory, planFaults, planned, u32, u64 } from './images.ts';

const ZERO_PAGE = 0x7000;

describe('bzImage', () => {
  test('is entered 0x200 behind its preferred address, with the zero page in rsi', () => {
    const code = Uint8Array.of(0x90, 0x90, 0xf4);
    const request = bootRequest(buildBzImage({ code }));
    const plan = planBoot(request);
    expect(plan.protocol).toBe('bzimage');
    expect(plan.entry).toMatchObject({ mode: 'long64', rip: 0x1000200, rsi: ZERO_PAGE });
    expect([...planned(plan, plan.entry.rip, 3)]).toEqual([...code]);
    expect(planFaults(plan, request)).toEqual([]);
    expect(plan.warnings).toEqual([]);
  });

  test('finds its segments, and an identity map of 4 GiB in 2 MiB pages', () => {
    const plan = planBoot(bootRequest(buildBzImage()));
    const { cr3 = 0, gdt, rsp = 0 } = plan.entry;
    expect(gdt.limit).toBe(31);
    expect(u64(plan, gdt.base + 0x10)).toBe(0x00af9b000000ffffn);
    expect(u64(plan, gdt.base + 0x18)).toBe(0x00cf93000000ffffn);
    const walk = (linear: number) => {
      const pml4e = u64(plan, cr3 + 8 * (Math.floor(linear / 2 ** 39) % 512));
      const pdpte = u64(plan, Number(pml4e & ~0xfffn) + 8 * (Math.floor(linear / 2 ** 30) % 512));
      const pde = u64(plan, Number(pdpte & ~0xfffn) + 8 * (Math.floor(linear / 2 ** 21) % 512));
      expect([pml4e & 3n, pdpte & 0x83n, pde & 0x83n]).toEqual([3n, 3n, 0x83n]);
      return Number(pde & ~0x1fffffn) + (linear % 2 ** 21);
    };
    for (const linear of [0, 0x1000200, 0x3fffffff, 0x40000000, 0xfee00000, 0xffffffff]) {
      expect(walk(linear)).toBe(linear);
    }
    // A push must not land in the zero page or the page tables.
    expect(planned(plan, rsp - 8, 8).every((byte) => byte === 0)).toBe(true);
    expect(rsp - 0x1000).toBeGreaterThanOrEqual(ZERO_PAGE + 0x1000);
    expect(rsp).toBeLessThanOrEqual(cr3);
  });

  test('gets its header back, with what a loader says in it', () => {
    const initrd = new Uint8Array(5000).fill(7);
    const plan = planBoot(bootRequest(buildBzImage(), { initrd, cmdline: 'quiet ünï' }));
    expect(planned(plan, ZERO_PAGE + 0x202, 4).toString('latin1')).toBe('HdrS');
    expect(u32(plan, ZERO_PAGE + 0x206) & 0xffff).toBe(0x020f);
    expect(u32(plan, ZERO_PAGE + 0x260)).toBe(0x800000);
    expect(planned(plan, ZERO_PAGE + 0x210, 1)[0]).toBe(0xff);
    expect(u32(plan, ZERO_PAGE + 0x214)).toBe(0x1000000);
    expect(u64(plan, ZERO_PAGE + 0x70)).toBe(0xe0000n);
    const cmdline = u32(plan, ZERO_PAGE + 0x228);
    expect(planned(plan, cmdline, 12).toString('utf8')).toBe('quiet ünï\0');
    const at = u32(plan, ZERO_PAGE + 0x218);
    expect(u32(plan, ZERO_PAGE + 0x21c)).toBe(5000);
    expect(u32(plan, ZERO_PAGE + 0xc0)).toBe(0);
    expect(at % 4096).toBe(0);
    expect(at + 5000).toBeGreaterThan(256 * MiB - 8192);
    expect(planned(plan, at, 5000).equals(initrd)).toBe(true);
    // The file's first bytes (boot code) are no part of the boot parameters: screen_info and the like are zero.
    expect(planned(plan, ZERO_PAGE, 0x70).every((byte) => byte === 0)).toBe(true);
    expect(planned(plan, ZERO_PAGE + 0x1ef, 1)[0]).toBe(0);
  });

  test('is told the memory map', () => {
    const memoryMap = pcMemory(3 * GiB, 5 * GiB);
    memoryMap.splice(3, 0, { gpa: 0xf0000000, size: 0x10000, type: 'acpi' });
    const plan = planBoot(bootRequest(buildBzImage(), { memoryMap }));
    expect(planned(plan, ZERO_PAGE + 0x1e8, 1)[0]).toBe(6);
    const entries = memoryMap.map((_, i) => {
      const at = ZERO_PAGE + 0x2d0 + 20 * i;
      return { gpa: Number(u64(plan, at)), size: Number(u64(plan, at + 8)), type: u32(plan, at + 16) };
    });
    const types = { ram: 1, reserved: 2, acpi: 3 } as Record<string, number>;
    expect(entries).toEqual(memoryMap.map(({ gpa, size, type }) => ({ gpa, size, type: types[type] })));
  });

  test('moves up when its preferred place is taken, and only a relocatable one', () => {
    const memoryMap = pcMemory();
    memoryMap[3] = { gpa: MiB, size: 16 * MiB, type: 'ram' };
    memoryMap.push({ gpa: 17 * MiB, size: MiB, type: 'reserved' }, { gpa: 18 * MiB, size: 200 * MiB, type: 'ram' });
    const plan = planBoot(bootRequest(buildBzImage({ alignment: 0x1000000, initSize: 30 * MiB }), { memoryMap }));
    expect(plan.entry.rip).toBe(32 * MiB + 0x200);
    expect(u32(plan, ZERO_PAGE + 0x214)).toBe(32 * MiB);
    expect(() =>
      planBoot(bootRequest(buildBzImage({ relocatable: false, initSize: 30 * MiB }), { memoryMap })),
    ).toThrow(expect.objectContaining({ code: 'KERNEL_TOO_BIG' }));
  });

  test('takes the lesser alignment when nothing else has room', () => {
    const memoryMap = pcMemory();
    memoryMap[3] = { gpa: 18 * MiB, size: 12 * MiB, type: 'ram' };
    const kernel = buildBzImage({ alignment: 0x1000000, minAlignment: 21, initSize: 8 * MiB });
    expect(planBoot(bootRequest(kernel, { memoryMap })).entry.rip).toBe(18 * MiB + 0x200);
  });

  test('has its initrd below initrd_addr_max, or above 4 GiB when it can and must', () => {
    const initrd = new Uint8Array(4 * MiB);
    const below = planBoot(bootRequest(buildBzImage({ initrdMax: 0x3ffffff }), { initrd }));
    expect(u32(below, ZERO_PAGE + 0x218)).toBe(60 * MiB);
    const memoryMap = pcMemory(26 * MiB, GiB);
    const kernel = { initSize: 8 * MiB, initrdMax: 0x17fffff };
    const above = planBoot(bootRequest(buildBzImage(kernel), { initrd: new Uint8Array(20 * MiB), memoryMap }));
    expect(u32(above, ZERO_PAGE + 0xc0)).toBe(1);
    expect(u32(above, ZERO_PAGE + 0x218)).toBe(GiB - 20 * MiB);
    expect(() =>
      planBoot(
        bootRequest(buildBzImage({ ...kernel, xloadflags: 1 }), { initrd: new Uint8Array(20 * MiB), memoryMap }),
      ),
    ).toThrow(expect.objectContaining({ code: 'INITRD_TOO_BIG', message: expect.stringContaining('20 MiB') }));
  });

  test('leaves its unpacking room alone', () => {
    const initrd = new Uint8Array(200 * MiB);
    const request = bootRequest(buildBzImage({ initSize: 30 * MiB }), { initrd });
    const plan = planBoot(request);
    expect(u32(plan, ZERO_PAGE + 0x218)).toBeGreaterThanOrEqual(46 * MiB);
    expect(() => planBoot({ ...request, initrd: new Uint8Array(211 * MiB) })).toThrow(
      expect.objectContaining({ code: 'INITRD_TOO_BIG' }),
    );
  });

  test('an empty initrd is no initrd, with a warning', () => {
    const plan = planBoot(bootRequest(buildBzImage(), { initrd: new Uint8Array() }));
    expect(u32(plan, ZERO_PAGE + 0x218)).toBe(0);
    expect(plan.warnings).toEqual([expect.stringContaining('empty')]);
  });

  test.each([
    ['of an old protocol', { version: 0x020a }, 'KERNEL_FORMAT', '2.10'],
    ['for 32 bits', { xloadflags: 2 }, 'KERNEL_FORMAT', '32-bit'],
    ['loaded low', { loadflags: 0 }, 'KERNEL_FORMAT', 'zImage'],
    ['with too little code', { syssize: 0x20 }, 'KERNEL_FORMAT', '512 bytes'],
    ['cut off', { syssize: 0x1000 }, 'KERNEL_TRUNCATED', `${5 * 512 + 0x10000} bytes`],
    ['too big for RAM', { initSize: 241 * MiB }, 'KERNEL_TOO_BIG', '241 MiB'],
    ['that wants to be above 4 GiB', { prefAddress: 0x100000000n }, 'KERNEL_TOO_BIG', '0x100000000'],
  ])('%s is refused', (_, options, code, text) => {
    expect(() => planBoot(bootRequest(buildBzImage(options)))).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(text) }),
    );
  });

  test('a command line that is too long, or has a NUL, is refused', () => {
    expect(() => planBoot(bootRequest(buildBzImage({ cmdlineSize: 10 }), { cmdline: '12345678901' }))).toThrow(
      expect.objectContaining({ code: 'CMDLINE_TOO_LONG', message: expect.stringMatching(/ 11 bytes.* 10 at most/) }),
    );
    expect(planBoot(bootRequest(buildBzImage({ cmdlineSize: 10 }), { cmdline: '1234567890' })).protocol).toBe(
      'bzimage',
    );
    expect(() => planBoot(bootRequest(buildBzImage(), { cmdline: 'a\0b' }))).toThrow(
      expect.objectContaining({ code: 'CMDLINE_FORMAT' }),
    );
  });

  test('a memory map that cannot be is refused', () => {
    const plan = (memoryMap: ReturnType<typeof pcMemory>) => planBoot(bootRequest(buildBzImage(), { memoryMap }));
    const refused = expect.objectContaining({ code: 'MEMORY_MAP' });
    expect(() => plan([...pcMemory(), { gpa: 2 * MiB, size: MiB, type: 'reserved' }])).toThrow(refused);
    expect(() => plan([{ gpa: 16 * MiB, size: 64 * MiB, type: 'ram' }])).toThrow(refused);
    const many = Array.from({ length: 130 }, (_, i) => ({ gpa: GiB + i * MiB, size: 4096, type: 'reserved' as const }));
    expect(() => plan([...pcMemory(), ...many])).toThrow(refused);
  });
});
