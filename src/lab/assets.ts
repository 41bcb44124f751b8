import { readFile } from 'node:fs/promises';

/** A file of the `assets` folder, which lies beside this module and beside the bundle that holds it. */
export function readAsset(
  name: 'init.sh' | 'agent.sh' | 'hotplug.sh' | 'install_debian.sh' | 'lab-init.sh' | 'lab-loader.mjs',
): Promise<Buffer> {
  return readFile(new URL(`./assets/${name}`, import.meta.url));
}
