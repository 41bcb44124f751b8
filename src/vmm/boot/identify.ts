/** Names files that are no kernel, for the error message: a wrong path is the most common mistake. */
import { NemuError } from '../../client/errors.ts';

const EXPECTED = 'Expected a Linux bzImage, an ELF64 file (with a PVH note or without), or a Multiboot 1 kernel.';

interface Known {
  readonly what: string;
  readonly hint?: string;
}

/** [offset, bytes as Latin-1 text, what it is, what to do] */
const MAGICS: readonly (readonly [number, string, string, string?])[] = [
  [
    0,
    '\x1f\x8b',
    'a gzip-compressed file',
    'A compressed vmlinux must be unpacked first (gunzip); a compressed archive is an initrd: pass it with --initrd.',
  ],
  [0, '\xfd7zXZ\0', 'an xz-compressed file', 'Unpack it first (unxz).'],
  [0, '\x28\xb5\x2f\xfd', 'a zstd-compressed file', 'Unpack it first (unzstd); an initrd is passed with --initrd.'],
  [0, '\x04\x22\x4d\x18', 'an LZ4-compressed file', 'Unpack it first (unlz4).'],
  [0, '\x02\x21\x4c\x18', 'an LZ4-compressed file', 'Unpack it first (unlz4).'],
  [0, 'BZh', 'a bzip2-compressed file', 'Unpack it first (bunzip2).'],
  [0, '\x89LZO\0', 'an LZO-compressed file', 'Unpack it first (lzop -d).'],
  [0, 'PK\x03\x04', 'a ZIP archive', 'Unpack it first.'],
  [0, '070701', 'a cpio archive (an initramfs)', 'Pass it with --initrd.'],
  [0, '070702', 'a cpio archive (an initramfs)', 'Pass it with --initrd.'],
  [0, '070707', 'an old cpio archive', 'An initramfs is a "newc" archive, and is passed with --initrd.'],
  [0, 'QFI\xfb', 'a qcow2 disk image', 'A disk image is not a kernel: pass the kernel that is inside it.'],
  [0, 'KDMV', 'a VMDK disk image', 'A disk image is not a kernel: pass the kernel that is inside it.'],
  [0, 'vhdxfile', 'a VHDX disk image', 'A disk image is not a kernel: pass the kernel that is inside it.'],
  [0x40, '\x7f\x10\xda\xbe', 'a VDI disk image', 'A disk image is not a kernel: pass the kernel that is inside it.'],
  [0x8001, 'CD001', 'an ISO 9660 image', 'A disc image is not a kernel: pass the kernel that is inside it.'],
  [0, 'hsqs', 'a SquashFS file system', 'A file system is not a kernel: pass the kernel that is inside it.'],
  [0x438, '\x53\xef', 'an ext2, ext3 or ext4 file system', 'Pass the kernel that is inside it.'],
  [0, '!<arch>\n', 'an ar archive (a Debian package or a static library)', 'Unpack it: dpkg-deb -x FILE FOLDER.'],
  [0, '\xed\xab\xee\xdb', 'an RPM package', 'Unpack it: rpm2cpio FILE | cpio -i.'],
  [257, 'ustar', 'a tar archive', 'Unpack it first.'],
  [0x38, 'ARM\x64', 'a Linux kernel for AArch64 (Image)', 'Use a kernel built for x86-64.'],
  [0x38, 'RSC\x05', 'a Linux kernel for RISC-V (Image)', 'Use a kernel built for x86-64.'],
  [4, 'zimg', 'a compressed EFI image of a Linux kernel (vmlinuz.efi of another machine)', 'Use a kernel for x86-64.'],
  [0, '\x27\x05\x19\x56', 'a U-Boot image (uImage)', 'Use the bzImage or vmlinux that it was made of.'],
  [0, '\xd0\x0d\xfe\xed', 'a device tree or FIT image', 'Use the bzImage or vmlinux itself.'],
  [0, '%PDF', 'a PDF document'],
  [0, '\xce\xfa\xed\xfe', 'a Mach-O file (macOS)'],
  [0, '\xcf\xfa\xed\xfe', 'a Mach-O file (macOS)'],
];

/** The error for a file of no format that can be started. Looks at the first 36 KiB at most. */
export function unknownKernel(file: Uint8Array, name: string): NemuError {
  const { what, hint } = identify(file);
  return new NemuError('KERNEL_FORMAT', `${name} is not a kernel: it is ${what}.`, {
    hint: hint ? `${hint} ${EXPECTED}` : EXPECTED,
  });
}

function identify(file: Uint8Array): Known {
  if (file.length === 0) return { what: 'empty', hint: 'Was it written or downloaded completely?' };
  for (const [offset, magic, what, hint] of MAGICS) {
    if (textAt(file, offset, magic.length) === magic) return { what, ...(hint && { hint }) };
  }
  if (textAt(file, 0, 2) === 'MZ') return portableExecutable(file);
  if (textAt(file, 510, 2) === '\x55\xaa') {
    return {
      what: 'a boot sector or a disk image with a partition table (MBR)',
      hint: 'A disk image is not a kernel: pass the kernel that is inside it.',
    };
  }
  const head = file.subarray(0, 4096);
  if (head.every((byte) => byte === 0)) return { what: `${file.length} bytes that start with zeros only` };
  if (textAt(file, 0, 2) === '#!') {
    const line = Buffer.from(head.subarray(2, 66)).toString('latin1').split('\n')[0].trim();
    return { what: `a script (${printable(line)})` };
  }
  if (isText(head)) return { what: 'a text file' };
  const bytes = [...file.subarray(0, 8)].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
  return { what: `${file.length} bytes of an unknown kind (they start with ${bytes})` };
}

function portableExecutable(file: Uint8Array): Known {
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  const header = file.length >= 0x40 ? view.getUint32(0x3c, true) : file.length;
  if (textAt(file, header, 4) !== 'PE\0\0' || header + 6 > file.length) {
    return { what: 'a DOS program, or a kernel cut off in its first sector' };
  }
  const machines: Record<number, string> = {
    332: '32-bit x86',
    452: '32-bit Arm',
    20530: '64-bit RISC-V',
    34404: 'x86-64',
    43620: 'AArch64',
  };
  const machine = view.getUint16(header + 4, true);
  return {
    what: `an EFI or Windows program (PE) for ${machines[machine] ?? `machine ${machine}`} without Linux's setup header`,
    hint: 'A unified kernel image (UKI) has the kernel in its .linux section: objcopy -O binary --only-section=.linux FILE KERNEL.',
  };
}

function textAt(file: Uint8Array, offset: number, length: number): string {
  return Buffer.from(file.buffer, file.byteOffset, file.length).toString('latin1', offset, offset + length);
}

const printable = (text: string) => text.replace(/[^\x20-\x7e]/g, '?');

/** Text has no control characters but white space, and is valid UTF-8 up to a character that was cut off. */
function isText(head: Uint8Array): boolean {
  if (head.some((byte) => byte < 0x20 && byte !== 9 && byte !== 10 && byte !== 12 && byte !== 13 && byte !== 27)) {
    return false;
  }
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(head, { stream: true });
    return true;
  } catch {
    return false;
  }
}
