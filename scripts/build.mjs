// Bundles each entry point into one file under dist/: a thread or a program then starts by reading one file,
// which matters most in the lab, where every file costs a round trip.
import { cpSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';

const root = join(import.meta.dirname, '..');

const options = {
  absWorkingDir: root,
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
};
// Pieces of an older build have other names.
rmSync(join(root, 'dist'), { recursive: true, force: true });
const threads = { machine_entry: 'src/vmm/machine_entry.ts', vcpu_entry: 'src/vmm/vcpu_entry.ts' };
await build({ ...options, entryPoints: threads });
// The lab has no package.json that would say what a .js file is.
await build({
  ...options,
  outdir: 'dist/lab',
  outExtension: { '.js': '.mjs' },
  entryPoints: { ...threads, agent: 'src/cli/lab_agent.ts' },
});
// What one command alone needs is loaded by it: the workstation's React is as large as all the rest.
await build({
  ...options,
  entryPoints: { nemu: 'src/cli/main.ts' },
  splitting: true,
  chunkNames: 'nemu-[name]-[hash]',
  // Ink asks for it when it is told to be debugged.
  external: [...options.external, 'react-devtools-core'],
  define: { 'process.env.NODE_ENV': '"production"' },
});
cpSync(join(root, 'src', 'lab', 'assets'), join(root, 'dist', 'assets'), { recursive: true });
writeFileSync(join(root, 'dist', '.built'), '');
