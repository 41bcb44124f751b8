import { join } from 'node:path';
import { build } from 'esbuild';

/** Makes of a program and all that it imports, JSX too, what Node runs. @returns its file in `folder`. */
export async function bundleProgram(entry: string, folder: string): Promise<string> {
  await build({
    ...{ entryPoints: { program: entry }, outdir: folder, outExtension: { '.js': '.mjs' }, logLevel: 'warning' },
    ...{ bundle: true, platform: 'node', format: 'esm', target: 'node24' },
    // A dynamic import stays one: Ink asks for React's debugging tools only when it is told to.
    ...{ splitting: true, external: ['koffi', 'react-devtools-core'] },
    define: { 'process.env.NODE_ENV': '"production"' },
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
    },
  });
  return join(folder, 'program.mjs');
}
