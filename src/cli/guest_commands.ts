/** `nemu guest`: kernels and systems for guests. */
import { type Command, Option } from 'commander';
import { NemuError } from '../client/errors.ts';
import { formatSize, parseSize } from '../client/sizes.ts';
import { table } from '../client/text_table.ts';
import { fetchGuest, hostGuest, listGuests, removeGuest } from '../lab/guest.ts';
import { findRootImage, listRootImages, removeRootImage } from '../lab/root_image.ts';
import { buildDebian } from './guest_build.ts';
import { GuestArgument } from './named.ts';
import { fetchProgress, ProgressLine } from './progress.ts';
import { onOption, RUN_DEFAULTS } from './run_options.ts';

export function addGuest(nemu: Command): void {
  const guest = nemu.command('guest').description('kernels to boot as guests');
  guest
    .command('fetch')
    .description('fetches a Debian kernel into the cache; no root needed')
    .argument('[release]', 'series (6.12, 6.1) or exact release')
    .addOption(
      new Option('--flavour <name>', 'small for virtual machines, or with every driver')
        .choices(['cloud', 'full'])
        .default('cloud'),
    )
    .action(async (release: string | undefined, { flavour }) => {
      const line = new ProgressLine();
      const fetched = await fetchGuest({ flavour, ...(release && { series: release }) }, fetchProgress(line));
      line.done();
      process.stdout.write(`${fetched.name}\n`);
    });
  guest
    .command('build')
    .description('makes a root image from Debian packages; no root needed')
    .argument('<system>', 'debian')
    .option('--name <name>', 'name of the image', 'debian')
    .option('--size <size>', 'of its disk', '8G')
    .option('--include <packages>', 'more packages, with commas between them', (text: string) => text.split(','), [])
    .addOption(onOption())
    .option('--verbose', "shows the guest's kernel too")
    .action(async (system: string, { name, size, include, on, verbose }) => {
      if (system !== 'debian') {
        throw new NemuError('USAGE', `There is no recipe for "${system}".`, { hint: 'It can be debian.' });
      }
      process.exitCode = await buildDebian({ name, size: parseSize(size), include, on, verbose }, RUN_DEFAULTS);
    });
  guest
    .command('list')
    .description('lists the kernels and root images that are here')
    .option('--json', 'print JSON')
    .action(async ({ json }) => list(json));
  guest
    .command('rm')
    .description('removes a kernel or a root image')
    .addArgument(new GuestArgument('<name>'))
    .action(async (name: string) => ((await findRootImage(name)) ? removeRootImage(name) : removeGuest(name)));
}

async function list(json: boolean | undefined): Promise<void> {
  const fetched = await listGuests();
  const own = fetched.length > 0 ? [] : await hostGuest().catch(() => []);
  const kernels = fetched.concat(own);
  const images = await listRootImages();
  if (json) {
    const all = [
      ...kernels.map((each) => ({ kind: 'kernel', ...each })),
      ...images.map((each) => ({ kind: 'image', ...each })),
    ];
    process.stdout.write(`${JSON.stringify(all, null, 2)}\n`);
    return;
  }
  if (kernels.length === 0) process.stdout.write('No kernel was fetched yet: nemu guest fetch\n');
  else {
    const rows = kernels.map((each) => [each.name, each.flavour, each.source, each.kernel]);
    process.stdout.write(`${table(['kernel', 'flavour', 'source', 'file'], rows)}\n`);
  }
  if (images.length === 0) return;
  const rows = images.map((each) => [each.name, formatSize(each.bytes), each.path]);
  process.stdout.write(`\n${table(['root image', 'on disk', 'file'], rows)}\n`);
}
