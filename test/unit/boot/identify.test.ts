import { expect, test } from 'vitest';
import type { NemuError } from '../../../src/client/errors.ts';
import { planBoot } from '../../../src/vmm/boot/plan.ts';
import { bootRequest, buildBzImage } from './images.ts';

const at = (offset: number, text: string) => Buffer.concat([Buffer.alloc(offset), Buffer.from(text, 'latin1')]);

function pe(machine: number): Buffer {
  const file = Buffer.alloc(0x100);
  file.write('MZ', 0);
  file.writeUInt32LE(0x80, 0x3c);
  file.write('PE\0\0', 0x80, 'latin1');
  file.writeUInt16LE(machine, 0x84);
  return file;
}

const FILES: [string, Buffer, RegExp][] = [
  ['nothing', Buffer.alloc(0), /is empty/],
  ['gzip', at(0, '\x1f\x8b\x08'), /gzip/],
  ['xz', at(0, '\xfd7zXZ\0'), /an xz/],
  ['zstd', at(0, '\x28\xb5\x2f\xfd'), /zstd/],
  ['an initramfs', at(0, '070701000000'), /cpio/],
  ['qcow2', at(0, 'QFI\xfb'), /qcow2/],
  ['ISO', at(0x8001, 'CD001'), /ISO 9660/],
  ['a disk', at(510, '\x55\xaa'), /partition table/],
  ['ext4', at(0x438, '\x53\xef'), /ext4/],
  ['a Debian package', at(0, '!<arch>\ndebian-binary'), /Debian package/],
  ['an AArch64 Image', at(0x38, 'ARM\x64'), /AArch64/],
  ['a RISC-V Image', at(0x38, 'RSC\x05'), /RISC-V/],
  ['an EFI program', pe(34404), /EFI.*x86-64/],
  ['an EFI program of AArch64', pe(43620), /EFI.*AArch64/],
  ['a kernel cut off early', buildBzImage().subarray(0, 0x100).fill('MZ', 0, 2), /cut off in its first sector/],
  ['a script', Buffer.from('#!/bin/sh\necho\n'), /a script \(\/bin\/sh\)/],
  ['text', Buffer.from('Tschüß, Welt\n'), /a text file/],
  ['zeros', Buffer.alloc(600), /600 bytes that start with zeros/],
  ['noise', Buffer.from([1, 2, 3, 0xff, 0x80]), /5 bytes.*01 02 03 ff 80/],
];

test.each(FILES)('%s is named', (_, kernel, text) => {
  const error = (() => {
    try {
      planBoot(bootRequest(kernel));
    } catch (thrown) {
      return thrown as NemuError;
    }
    throw new Error('It was taken for a kernel.');
  })();
  expect(error).toMatchObject({ name: 'NemuError', code: 'KERNEL_FORMAT' });
  expect(error.message).toMatch(text);
  expect(error.message).toContain('/boot/test-kernel');
  expect(error.hint).toMatch(/Expected a Linux bzImage/);
});
