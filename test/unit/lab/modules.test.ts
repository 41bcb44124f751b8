import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readModuleInfo } from '../../../src/lab/modinfo.ts';
import { modulesAlias, modulesDep, openModules, resolveModules } from '../../../src/lab/modules.ts';

/** A minimal ELF-64 object with a section table: null, .modinfo, .shstrtab. */
function moduleFile(...strings: string[]): Buffer {
  const modinfo = Buffer.from(strings.map((text) => `${text}\0`).join(''));
  const names = Buffer.from('\0.modinfo\0.shstrtab\0');
  const header = Buffer.alloc(64);
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  header.writeBigUInt64LE(BigInt(64 + modinfo.length + names.length), 40);
  header.writeUInt16LE(64, 58);
  header.writeUInt16LE(3, 60);
  header.writeUInt16LE(2, 62);
  const section = (name: number, offset: number, size: number) => {
    const bytes = Buffer.alloc(64);
    bytes.writeUInt32LE(name, 0);
    bytes.writeBigUInt64LE(BigInt(offset), 24);
    bytes.writeBigUInt64LE(BigInt(size), 32);
    return bytes;
  };
  const sections = [section(0, 0, 0), section(1, 64, modinfo.length), section(10, 64 + modinfo.length, names.length)];
  return Buffer.concat([header, modinfo, names, ...sections]);
}

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nemu-test-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function put(path: string, bytes: Uint8Array | string): Promise<void> {
  await mkdir(dirname(join(folder, path)), { recursive: true });
  await writeFile(join(folder, path), bytes);
}

describe('modinfo', () => {
  it('reads dependencies, soft dependencies and aliases', () => {
    const bytes = moduleFile(
      'license=GPL',
      'depends=a,b',
      'softdep=pre: c d post: e',
      'alias=acpi*:QEMU0001:*',
      'depends=',
    );
    expect(readModuleInfo('m', bytes)).toEqual({
      depends: ['a', 'b'],
      softPre: ['c', 'd'],
      softPost: ['e'],
      aliases: ['acpi*:QEMU0001:*'],
    });
  });

  it('answers every damage with MODULE_FORMAT or some lists', () => {
    const bytes = moduleFile('depends=a,b');
    for (let length = 0; length < bytes.length; length++) {
      expect(() => readModuleInfo('m', bytes.subarray(0, length))).toThrow(/not a valid module/);
    }
    let refused = 0;
    for (let at = 0; at < bytes.length; at++) {
      const damaged = Buffer.from(bytes);
      damaged[at] = (damaged[at] ?? 0) ^ 0xff;
      try {
        readModuleInfo('m', damaged);
      } catch (error) {
        expect(error).toMatchObject({ code: 'MODULE_FORMAT' });
        refused += 1;
      }
    }
    expect(refused).toBeGreaterThan(20);
  });
});

describe('module dependencies', () => {
  it('come before what needs them, once, whatever their compression', async () => {
    await put('modules.builtin', 'kernel/lib/built-in.ko\n');
    await put('kernel/top.ko', moduleFile('depends=mid-dle,built_in', 'softdep=pre: soft missing post: after'));
    await put('kernel/mid_dle.ko.gz', gzipSync(moduleFile('depends=base', 'alias=pci:v*')));
    await put('kernel/base.ko.zst', zstdCompressSync(moduleFile('depends=')));
    await put('kernel/soft.ko', moduleFile('depends=base'));
    await put('kernel/after.ko', moduleFile('depends=top'));
    const tree = await openModules(folder);
    const modules = await resolveModules(tree, ['top', 'built-in'], ['soft', 'nowhere']);
    expect(modules.map((module) => module.name)).toEqual(['base', 'mid_dle', 'soft', 'top', 'after']);
    expect(modules.every((module) => Buffer.from(module.data).readUInt32BE(0) === 0x7f454c46)).toBe(true);
    expect(modulesDep(modules).split('\n')).toEqual([
      'kernel/base.ko:',
      'kernel/mid_dle.ko: kernel/base.ko',
      'kernel/soft.ko: kernel/base.ko',
      'kernel/top.ko: kernel/mid_dle.ko kernel/base.ko',
      'kernel/after.ko: kernel/top.ko kernel/mid_dle.ko kernel/base.ko',
      '',
    ]);
    expect(modulesAlias(modules)).toBe('alias pci:v* mid_dle\n');
  });

  it('may be xz, as Debian has them', async ({ skip }) => {
    const { stdout, error } = spawnSync('xz', ['--check=crc32', '--lzma2=dict=1MiB', '-c'], {
      input: moduleFile('depends=', 'alias=x'),
    });
    if (error) skip('xz is not installed: it makes the sample.');
    await put('kernel/packed.ko.xz', stdout);
    const [module] = await resolveModules(await openModules(folder), ['packed']);
    expect(module).toMatchObject({ name: 'packed', path: 'kernel/packed.ko', aliases: ['x'] });
  });

  it('survive a circle', async () => {
    await put('a.ko', moduleFile('depends=b'));
    await put('b.ko', moduleFile('depends=a'));
    const modules = await resolveModules(await openModules(folder), ['a']);
    expect(modules.map((module) => module.name)).toEqual(['b', 'a']);
    expect(modulesDep(modules)).toContain('a.ko: b.ko');
  });

  it('say who needs what is missing', async () => {
    await put('a.ko', moduleFile('depends=gone'));
    const tree = await openModules(folder);
    await expect(resolveModules(tree, ['a'])).rejects.toThrow('no module "gone", which a needs');
    await expect(resolveModules(tree, ['nosuch'])).rejects.toMatchObject({ code: 'MODULE_UNKNOWN' });
  });
});
