import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { uringLayouts, uringNumbers } from '../../../src/ffi/io_uring.ts';
import { commonLayouts, commonNumbers } from '../../../src/ffi/kvm/common.ts';
import { x86Layouts, x86Numbers } from '../../../src/ffi/kvm/x86.ts';
import * as libc from '../../../src/ffi/libc.ts';
import { epoll_event, osLayouts, osNumbers } from '../../../src/ffi/os.ts';
import type { Layout } from '../../../src/ffi/struct.ts';
import { tunLayouts, tunNumbers } from '../../../src/ffi/tun.ts';

/** Fields that stand in an anonymous union under another name than ours, or that only name padding. */
const C_NAME: Record<string, string> = { 'epoll_event.fd': 'data.fd', 'epoll_event.pad': 'data' };

const libcNumbers = Object.fromEntries(
  Object.entries(libc).filter(
    ([name, value]) => typeof value === 'number' && /^(O|PROT|MAP|MADV|MFD|F|MPOL|RLIMIT|PR|E)_?[A-Z_]+$/.test(name),
  ),
) as Record<string, number>;

const layouts: Layout[] = [
  ...commonLayouts,
  ...osLayouts,
  ...tunLayouts,
  ...uringLayouts,
  ...(process.arch === 'x64' ? x86Layouts : []),
] as Layout[];
const numbers: Record<string, number> = {
  ...commonNumbers,
  ...osNumbers,
  ...tunNumbers,
  ...uringNumbers,
  ...libcNumbers,
  ...(process.arch === 'x64' ? x86Numbers : {}),
};

function compileAndRun(): Map<string, string> {
  const folder = mkdtempSync(join(tmpdir(), 'nemu-headers-'));
  try {
    const lines = [
      '#define _GNU_SOURCE',
      '#include <errno.h>',
      '#include <fcntl.h>',
      '#include <linux/if_tun.h>',
      '#include <linux/io_uring.h>',
      '#include <linux/kvm.h>',
      '#include <linux/memfd.h>',
      '#include <linux/mempolicy.h>',
      '#include <net/if.h>',
      '#include <signal.h>',
      '#include <stddef.h>',
      '#include <stdio.h>',
      '#include <sys/epoll.h>',
      '#include <sys/eventfd.h>',
      '#include <sys/mman.h>',
      '#include <sys/prctl.h>',
      '#include <sys/resource.h>',
      '#include <sys/timerfd.h>',
      '#include <time.h>',
      'int main(void) {',
    ];
    for (const layout of [...layouts, epoll_event as Layout]) {
      lines.push(`printf("sizeof ${layout.name} %zu\\n", sizeof(struct ${layout.name}));`);
      for (const field of Object.keys(layout.fields)) {
        const name = C_NAME[`${layout.name}.${field}`] ?? field;
        if ((name === 'data' && layout.name === 'epoll_event') || (name === 'pad' && layout.name === 'ifreq')) continue;
        lines.push(`printf("offsetof ${layout.name}.${field} %zu\\n", offsetof(struct ${layout.name}, ${name}));`);
      }
    }
    for (const name of Object.keys(numbers)) {
      // An older header may lack the newest names; what it has must agree.
      lines.push(/^[A-Z]+_/.test(name) ? `#ifdef ${name}` : '#if 1');
      lines.push(`printf("number ${name} %llu\\n", (unsigned long long)(${name}) & 0xffffffffull);`, '#endif');
    }
    lines.push('return 0; }');
    writeFileSync(join(folder, 'a.c'), lines.join('\n'));
    execFileSync('gcc', ['-o', join(folder, 'a'), join(folder, 'a.c')], { stdio: ['ignore', 'inherit', 'inherit'] });
    const output = execFileSync(join(folder, 'a'), { encoding: 'utf8' });
    return new Map(
      output
        .trim()
        .split('\n')
        .map((line) => [line.slice(0, line.lastIndexOf(' ')), line.slice(line.lastIndexOf(' ') + 1)]),
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const missing = ['/usr/bin/gcc', '/usr/include/linux/kvm.h'].filter((path) => !existsSync(path));

describe.skipIf(missing.length > 0)(`declarations against this machine's headers (needs gcc and linux/kvm.h)`, () => {
  const seen = missing.length > 0 ? new Map<string, string>() : compileAndRun();

  test.each([...layouts, epoll_event as Layout].map((layout) => [layout.name, layout] as const))(
    'struct %s',
    (_, layout) => {
      const ours: Record<string, string> = { [`sizeof ${layout.name}`]: String(layout.size) };
      for (const [field, offset] of Object.entries(layout.offsets))
        ours[`offsetof ${layout.name}.${field}`] = String(offset);
      const theirs = Object.fromEntries(Object.keys(ours).map((key) => [key, seen.get(key) ?? ours[key]]));
      expect(ours).toEqual(theirs);
      expect(seen.has(`sizeof ${layout.name}`)).toBe(true);
    },
  );

  test('every number', () => {
    const ours = Object.fromEntries(
      Object.entries(numbers)
        .filter(([name]) => seen.has(`number ${name}`))
        .map(([name, value]) => [name, String(value >>> 0)]),
    );
    const theirs = Object.fromEntries(Object.keys(ours).map((name) => [name, seen.get(`number ${name}`)]));
    expect(Object.keys(ours).length).toBeGreaterThan(100);
    expect(ours).toEqual(theirs);
    // KVM_EXIT and KVM_CAP names are not macros of every header, but ioctls always are.
    for (const name of Object.keys(x86Numbers)) expect(seen.has(`number ${name}`), name).toBe(true);
  });
});
