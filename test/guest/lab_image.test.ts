/** The saved lab that guests run in. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { labAgentPath } from '../../src/cli/paths.ts';
import { hostVerdict } from '../../src/cli/probe.ts';
import { buildLabImage, REHEARSAL } from '../../src/lab/lab_image.ts';

const onHost = (await hostVerdict()).stockKernels;

test.skipIf(onHost)(
  'the engine has run a guest in it, to its end (needs a host that takes the lab)',
  async () => {
    const { folder } = await buildLabImage({ bundle: labAgentPath() });
    expect(readFileSync(join(folder, REHEARSAL), 'utf8')).toBe('done\n');
  },
  300_000,
);
