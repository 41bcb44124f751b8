// Bundles each entry point into one file under dist/: a thread or a program then starts by reading one file,
// which matters most in the lab, where every file costs a round trip.
import { cpSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';

const root = join(import.meta.dirname, '..');

await build({
  absWorkingDir: root,
  entryPoints: {
    nemu: 'src/cli/main.ts',
    engine_thread: 'src/vmm/engine_thread.ts',
    'lab-agent': 'src/cli/lab_agent.ts',
  },
  outdir: 'dist',
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node24',
  // Less to parse at each start; names stay, for stack traces.
  minifyWhitespace: true,
  minifySyntax: true,
  // koffi loads a native addon that stands beside its own files.
  external: ['koffi'],
  // CommonJS packages in an ES module bundle still ask for require.
  banner: {
    js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
  },
  logLevel: 'warning',
});
cpSync(join(root, 'src', 'lab', 'assets'), join(root, 'dist', 'assets'), { recursive: true });
writeFileSync(join(root, 'dist', '.built'), '');
