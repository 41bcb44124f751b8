/** `nemu gdb`: the host's gdb on a machine in the background. */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { NemuError } from '../../client/errors.ts';
import type { KernelSymbol } from '../../client/guest_kernel/kallsyms.ts';
import { VmcoreInfo } from '../../client/guest_kernel/vmcoreinfo.ts';
import { symbolFile } from '../../gdb/symbol_file.ts';
import { findProgram } from '../../lab/command.ts';
import { Kernel } from '../../repl/kernel.ts';
import { EXIT } from '../exit_codes.ts';
import { GdbListener } from '../gdb_listener.ts';
import { leaveInterrupts } from '../own_command.ts';
import { runFolder } from '../paths.ts';
import type { AttachedMachine } from './connection.ts';

export interface GdbCommandOptions {
  readonly listen?: string;
  readonly gdb: string;
  /** Commander's name of --no-symbols. */
  readonly symbols: boolean;
}

const say = (text: string) => process.stderr.write(`nemu: ${text}\n`);

/**
 * Has the user's gdb on a machine, until it is left.
 * @param vmlinux with symbols; found, or made of the guest's own table, without.
 * @param words for gdb.
 * @returns gdb's exit status.
 * @throws NemuError GDB_MISSING, USAGE, GDB_SOCKET
 */
export async function runGdb(
  attached: AttachedMachine,
  vmlinux: string | undefined,
  words: readonly string[],
  { listen, gdb, symbols }: GdbCommandOptions,
): Promise<number> {
  const listener = new GdbListener(attached.machine);
  try {
    if (listen !== undefined) return await listenOnly(attached, listener, listen);
    if (!gdb.includes('/') && findProgram(gdb) === undefined) {
      throw new NemuError('GDB_MISSING', `There is no ${gdb} on this host.`, {
        hint: 'Install it (apt install gdb), name another with --gdb, or have one connect elsewhere with --listen.',
      });
    }
    // Before gdb, which stops the machine.
    const load = symbols ? await loadSymbols(attached, vmlinux) : [];
    const target = await listener.listen({ path: join(runFolder(), 'gdb') });
    const commands = [...load, `target remote ${target}`].flatMap((command) => ['-ex', command]);
    return await spawnGdb(gdb, ['-q', ...commands, ...words]);
  } finally {
    listener.close();
  }
}

async function listenOnly({ machine }: AttachedMachine, listener: GdbListener, where: string): Promise<number> {
  const target = await listener.listen(where);
  say(`gdb -ex 'target remote ${target}'; Ctrl-C ends this.`);
  const { promise, resolve: interrupted } = Promise.withResolvers<void>();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => interrupted());
  await Promise.race([promise, machine.ended()]);
  return EXIT.OK;
}

function spawnGdb(program: string, args: readonly string[]): Promise<number> {
  // Ctrl-C is gdb's: it stops the guest.
  const ignore = () => {};
  const come = leaveInterrupts();
  process.on('SIGINT', ignore);
  return new Promise<number>((done, reject) => {
    const child = spawn(program, args, { stdio: 'inherit' });
    child.once('error', (cause) =>
      reject(new NemuError('GDB_MISSING', `${program} cannot be run: ${cause.message}.`, { cause })),
    );
    child.once('exit', (status) => done(status ?? EXIT.HOST));
  }).finally(() => {
    process.off('SIGINT', ignore);
    come();
  });
}

/** @returns gdb's commands; symbols are no condition. */
async function loadSymbols({ machine, known }: AttachedMachine, given: string | undefined): Promise<string[]> {
  const note = await machine.vmcoreinfo().catch(() => undefined);
  let info: VmcoreInfo | undefined;
  try {
    info = note && new VmcoreInfo(note);
  } catch (error) {
    if (!(error instanceof NemuError)) throw error;
    say(error.message);
  }
  const vmlinux = given === undefined ? findVmlinux(known.record.kernel, info?.release) : resolve(given);
  if (vmlinux !== undefined) {
    if (!existsSync(vmlinux)) throw new NemuError('USAGE', `The file ${vmlinux} does not exist.`);
    if (!isElf(vmlinux)) throw new NemuError('USAGE', `${vmlinux} is no ELF file: vmlinux is wanted, not bzImage.`);
    const offset = info?.entries.get('KERNELOFFSET');
    if (offset === undefined || !/^[0-9a-f]{1,16}$/i.test(offset)) {
      say('The guest has not said where its kernel is: with KASLR addresses are elsewhere (nokaslr turns it off).');
      return [`symbol-file ${vmlinux}`];
    }
    const modules = await made('modules', () => new Kernel(machine).moduleSymbols(), 'no symbols of modules');
    // Of its own accord gdb asks whether it is to.
    return [
      `symbol-file -o 0x${offset} ${vmlinux}`,
      ...modules.map((path) => `with confirm off -- add-symbol-file ${path}`),
    ];
  }
  const kernel = new Kernel(machine);
  const all = async () => [...(await kernel.symbols()).all, ...(await kernel.moduleSymbols())];
  return (await made('kallsyms', all, 'no symbols')).map((path) => `symbol-file ${path}`);
}

/** A file of symbols that the guest tells. @returns its path; none without symbols, and says why. */
async function made(name: string, tell: () => Promise<readonly KernelSymbol[]>, without: string): Promise<string[]> {
  try {
    const symbols = await tell();
    if (symbols.length === 0) return [];
    const path = join(runFolder(), name);
    writeFileSync(path, symbolFile(symbols));
    return [path];
  } catch (error) {
    if (!(error instanceof NemuError)) throw error;
    say(`There are ${without}: ${error.text}`);
    return [];
  }
}

/** Where builds and distributions have it, beside the image that the machine was started with. */
function findVmlinux(image: string, release = 'unknown'): string | undefined {
  const folder = dirname(image);
  return [
    image,
    join(folder, 'vmlinux'),
    ...(folder.endsWith('/arch/x86/boot') ? [join(folder, '../../../vmlinux')] : []),
    `/usr/lib/debug/boot/vmlinux-${release}`,
    `/usr/lib/debug/lib/modules/${release}/vmlinux`,
    `/lib/modules/${release}/build/vmlinux`,
  ].find((path) => existsSync(path) && isElf(path));
}

function isElf(path: string): boolean {
  try {
    const file = openSync(path, 'r');
    const magic = Buffer.alloc(4);
    readSync(file, magic, 0, 4, 0);
    closeSync(file);
    return magic.toString('latin1') === '\x7fELF';
  } catch {
    return false;
  }
}
