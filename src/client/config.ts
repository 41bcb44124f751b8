/** `--config`: a machine description in a file, as `nemu run --dry-run` prints it or as people write it. */
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Document, ParsedNode } from 'yaml';
import { type ConfigInput, configSchema, withDevicesApart } from './description.ts';
import { NemuError } from './errors.ts';
import { explain, type FieldPath, type Problem } from './explain.ts';
import { parseCpus, parseDimm, parseDisk, parseFwCfg, parseMemory, parseNet, parseNvdimm } from './options.ts';
import { fromFolder } from './paths.ts';

export interface Config {
  /** Checked, but without defaults: what is undefined was not said. */
  readonly input: ConfigInput;
  /** `machine.yaml:3:5`, where a field, or what is nearest around it, stands. */
  locate(path: FieldPath): string;
}

/** What may be written as on the command line: `cpus: 4`, `disks: [root.img]`. */
const SHORT: Readonly<Record<string, (text: string) => unknown>> = { cpus: parseCpus, memory: parseMemory };
const SHORT_ITEMS: Readonly<Record<string, (text: string) => unknown>> = {
  disks: parseDisk,
  nets: parseNet,
  dimms: parseDimm,
  nvdimms: parseNvdimm,
  fwCfg: parseFwCfg,
};

/**
 * Reads a machine description in YAML, of which JSON is a part. Relative paths in it start at its folder.
 * @throws NemuError CONFIG_FILE when it cannot be read; DESCRIPTION with file, line, column and field for each mistake.
 */
export async function readConfig(path: string): Promise<Config> {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new NemuError('CONFIG_FILE', `The machine description ${path} cannot be read (${code}).`, {
      hint: 'nemu run --dry-run prints one to start from.',
      cause,
    });
  }
  // Parsing YAML is for those who use it: others do not wait for the parser to load.
  const yaml = await import('./yaml.ts');
  const lines = new yaml.LineCounter();
  const document = yaml.parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return `${path}:${Math.max(1, line)}:${Math.max(1, col)}`;
  };
  if (document.errors.length > 0) {
    throw complaint(document.errors.map(({ pos, message }) => `${at(pos[0])}: ${message.replace(/[.:]?$/, '.')}`));
  }
  if (document.contents === null) {
    throw new NemuError('CONFIG_FILE', `The machine description ${path} is empty.`, {
      hint: 'nemu run --dry-run prints one to start from; {} is a machine of defaults.',
    });
  }
  const locate = (field: FieldPath) => at(offsetOf(document, field, yaml.isMap, yaml.isPair));
  const problems: Problem[] = [];
  const value = withShortForms(toPlain(document, at), problems);
  if (problems.length === 0) {
    const checked = configSchema.safeParse(value);
    if (!checked.success) problems.push(...explain(configSchema, checked.error.issues));
  }
  if (problems.length > 0) {
    throw complaint(
      problems.map(({ path: field, message }) =>
        field.length > 0 ? `${locate(field)}: ${field.join('.')}: ${message}` : `${at(0)}: ${message}`,
      ),
    );
  }
  return {
    input: withPaths(withDevicesApart(value as ConfigInput), (file) => fromFolder(dirname(path), file)),
    locate,
  };
}

const complaint = (lines: readonly string[]) => new NemuError('DESCRIPTION', lines.join('\n'));

function toPlain(document: Document.Parsed, at: (offset: number) => string): unknown {
  try {
    return document.toJS() ?? {};
  } catch (cause) {
    // Aliases that lead nowhere, or that make much of little.
    throw new NemuError('DESCRIPTION', `${at(0)}: ${(cause as Error).message}`, { cause });
  }
}

/** Where a field's name stands if it has one, else its value; for what is not there, what is around it. */
function offsetOf(
  document: Document.Parsed,
  path: FieldPath,
  isMap: typeof import('./yaml.ts').isMap,
  isPair: typeof import('./yaml.ts').isPair,
): number {
  let node: unknown = document.contents;
  let offset = document.contents?.range[0] ?? 0;
  for (const [depth, step] of path.entries()) {
    if (isMap(node)) {
      const pair = node.items.find((each) => isPair(each) && String((each.key as { value?: unknown })?.value) === step);
      if (!pair) return offset;
      offset = (pair.key as ParsedNode).range[0];
      node = pair.value;
    } else {
      node = document.getIn(path.slice(0, depth + 1), true);
      const range = (node as ParsedNode | undefined)?.range;
      if (!range) return offset;
      offset = range[0];
    }
  }
  return offset;
}

function withShortForms(value: unknown, problems: Problem[]): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const isShort = (each: unknown): each is string | number => typeof each === 'string' || typeof each === 'number';
  const read = (parse: (text: string) => unknown, text: string | number, path: FieldPath): unknown => {
    try {
      return parse(String(text));
    } catch (error) {
      if (!(error instanceof NemuError)) throw error;
      problems.push({ path, message: error.text.replace('\n', ' ') });
      return undefined;
    }
  };
  return Object.fromEntries(
    Object.entries(value).map(([key, field]: [string, unknown]) => {
      if (Object.hasOwn(SHORT, key) && isShort(field)) return [key, read(SHORT[key], field, [key])];
      if (!Object.hasOwn(SHORT_ITEMS, key) || !Array.isArray(field)) return [key, field];
      const items = field.map((item, i) => (isShort(item) ? read(SHORT_ITEMS[key], item, [key, i]) : item));
      // `none` is a network card that is not there.
      return [key, items.filter((item) => item !== undefined)];
    }),
  );
}

/** A description in which each path of a file is what `convert` makes of it. */
export function withPaths<T extends ConfigInput>(input: T, convert: (file: string) => string): T {
  const { kernel, memory, dimms, nvdimms, disks, devices, fwCfg } = input;
  return {
    ...input,
    ...(kernel && {
      kernel: {
        ...kernel,
        ...(kernel.image !== undefined && { image: convert(kernel.image) }),
        ...(kernel.initrd && { initrd: kernel.initrd.map(convert) }),
      },
    }),
    ...(memory?.path !== undefined && { memory: { ...memory, path: convert(memory.path) } }),
    ...(dimms && {
      dimms: dimms.map((dimm) => (dimm.path === undefined ? dimm : { ...dimm, path: convert(dimm.path) })),
    }),
    ...(nvdimms && { nvdimms: nvdimms.map((nvdimm) => ({ ...nvdimm, file: convert(nvdimm.file) })) }),
    ...(devices && {
      devices: devices.map((device) => ('file' in device ? { ...device, file: convert(device.file) } : device)),
    }),
    ...(disks && { disks: disks.map((disk) => ({ ...disk, file: convert(disk.file) })) }),
    ...(fwCfg && {
      fwCfg: fwCfg.map((item) => (item.file === undefined ? item : { ...item, file: convert(item.file) })),
    }),
  };
}

/** A description that means the same from any folder. */
export const withAbsolutePaths = <T extends ConfigInput>(input: T): T =>
  withPaths(input, (file) => fromFolder(process.cwd(), file));
