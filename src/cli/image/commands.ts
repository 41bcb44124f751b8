import type { Command } from 'commander';
import { commit, rebase, resize, snapshot } from './change.ts';
import { messageOf, translated } from './common.ts';
import { check, compare, DAMAGED, info, map } from './look.ts';
import { convert, create } from './make.ts';

const EXAMPLES = {
  create: `
Examples:
  nemu image create disk.qcow2 20G
  nemu image create -b base.qcow2 overlay.qcow2          # as large as base.qcow2
  nemu image create -o cluster_size=2M,preallocation=metadata big.qcow2 1T
  nemu image create -f raw disk.img 1G

Options of qcow2 (-o): cluster_size=64k, compat=1.1|0.10, refcount_bits=16, lazy_refcounts=on|off,
extended_l2=on|off, compression_type=zlib|zstd, preallocation=off|metadata|falloc|full.`,
  convert: `
Examples:
  nemu image convert disk.img disk.qcow2                 # the format is that of the name's end
  nemu image convert -c -o compression_type=zstd disk.qcow2 small.qcow2
  nemu image convert -O raw disk.qcow2 /dev/vg/disk
  nemu image convert --snapshot before disk.qcow2 then.qcow2`,
  check: `
Exit status: 0 all is well, 1 the check could not be done, 2 the image is damaged, 3 clusters have leaked.`,
  compare: `
Exit status: 0 they hold the same, 1 they differ, 2 they could not be compared.`,
};

export function addImage(nemu: Command): void {
  const image = nemu.command('image').description('disk images: raw and qcow2');

  image
    .command('create')
    .description('makes an empty image')
    .argument('<file>')
    .argument('[size]', "like 512M, 20G or 1T; the backing image's without one")
    .option('-f, --format <format>', "qcow2 or raw; by the name's end without one, else qcow2")
    .option('-b, --backing <file>', 'the image holds what differs from this one')
    .option('-F, --backing-format <format>', 'its format')
    .option('-o, --options <list>', 'options of the format')
    .option('-u, --unchecked', 'does not look at the backing file')
    .option('--force', 'replaces a file that is there')
    .option('--json', 'print what was made as JSON')
    .addHelpText('after', EXAMPLES.create)
    .action(action(create));

  image
    .command('info')
    .description('what an image is')
    .argument('<file>')
    .option('-f, --format <format>')
    .option('--backing-chain', 'and all images below it')
    .option('-U, --force-share', 'also while a machine is writing it')
    .option('--json', 'print JSON, in the terms of qemu-img')
    .action(action(info));

  image
    .command('convert')
    .description('copies a disk into a new image')
    .argument('<source>')
    .argument('<target>')
    .option('-f, --format <format>', "the source's format")
    .option('-O, --output-format <format>', "the target's; by the name's end without one, else qcow2")
    .option('-o, --options <list>', "options of the target's format")
    .option('-c, --compress', 'packs each cluster (qcow2)')
    .option('-B, --backing <file>', 'the target holds what differs from this one')
    .option('-F, --backing-format <format>', 'its format')
    .option('-l, --snapshot <name>', 'the disk as it was at a snapshot')
    .option('-p, --progress', 'a progress bar, which is there in a terminal anyway')
    .addHelpText('after', EXAMPLES.convert)
    .action(action(convert));

  image
    .command('resize')
    .description('gives an image another size')
    .argument('<file>')
    .argument('<size>', 'like 20G; +5G and -5G are from what it is')
    .option('-f, --format <format>')
    .option('--shrink', 'what is behind the new end is to be lost')
    .option('--preallocation <kind>', 'for what is new: off, metadata, falloc or full', 'off')
    .action(action(resize));

  image
    .command('snapshot')
    .description('lists, makes, goes back to or deletes the snapshots in an image')
    .argument('<file>')
    .option('-l, --list', 'lists them; so it is without another option')
    .option('-c, --create <name>', 'keeps the disk as it is now')
    .option('-a, --apply <name>', 'puts the disk back; what it is now is lost')
    .option('-d, --delete <name>', 'forgets one')
    .option('-f, --format <format>')
    .option('--json', 'print the list as JSON')
    .action(action(snapshot));

  image
    .command('check')
    .description('looks for damage, and repairs it')
    .argument('<file>')
    .option('-r, --repair <what>', 'leaks: give lost clusters back; all: mend tables too')
    .option('-f, --format <format>')
    .option('--json', 'print JSON, in the terms of qemu-img')
    .addHelpText('after', EXAMPLES.check)
    .action(action(check));

  image
    .command('map')
    .description("where the disk's bytes are: in which file, and where")
    .argument('<file>')
    .option('-f, --format <format>')
    .option('-U, --force-share', 'also while a machine is writing it')
    .option('--json', 'print JSON, in the terms of qemu-img')
    .action(action(map));

  image
    .command('compare')
    .description('do two images hold the same')
    .argument('<first>')
    .argument('<second>')
    .option('-f, --format <format>', "the first one's format")
    .option('-F, --second-format <format>', "the second one's")
    .option('-s, --strict', 'sizes have to be the same too')
    .addHelpText('after', EXAMPLES.compare)
    .action(async (...args: Parameters<typeof compare>) => {
      try {
        await compare(...args);
      } catch (error) {
        process.exitCode = DAMAGED;
        process.stderr.write(`nemu: ${messageOf(translated(error))}\n`);
      }
    });

  image
    .command('rebase')
    .description('puts an image on another backing image')
    .argument('<file>')
    .option('-b, --backing <file>', 'the new one; "" for none, so that the image holds all')
    .option('-F, --backing-format <format>', 'its format')
    .option('-f, --format <format>')
    .option('-u, --unsafe', 'changes the name alone: the new one holds the same as the old')
    .action(action(rebase));

  image
    .command('commit')
    .description('writes what an image holds into its backing image')
    .argument('<file>')
    .option('-f, --format <format>')
    .option('-d, --keep', 'the image keeps what it holds')
    .action(action(commit));
}

/** A command of ours, whose errors are sentences. */
function action<A extends unknown[]>(run: (...args: A) => Promise<void>): (...args: A) => Promise<void> {
  return async (...args) => {
    try {
      await run(...args);
    } catch (error) {
      throw translated(error);
    }
  };
}
