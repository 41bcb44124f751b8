import { parseSize } from '../../client/description.ts';
import { NemuError } from '../../client/errors.ts';
import { parseKeyValues } from '../../client/options.ts';
import { didYouMean } from '../../client/suggest.ts';
import { SystemError } from '../../ffi/libc.ts';
import type { BlockImage } from '../../storage/block_image.ts';
import { StorageError } from '../../storage/error.ts';
import { openImage } from '../../storage/open.ts';
import { PREALLOCATIONS } from '../../storage/qcow2/create.ts';
import { Qcow2Image } from '../../storage/qcow2/image.ts';
import { IoError } from '../../storage/task.ts';
import { type FormatOptions, imageFormat } from '../../storage/tools/create.ts';
import type { Progress } from '../../storage/tools/progress.ts';
import { ProgressLine } from '../progress.ts';

export function translated(error: unknown): unknown {
  if (error instanceof StorageError) {
    return new NemuError('IMAGE', error.message, {
      ...(error.hint !== undefined && { hint: error.hint }),
      cause: error,
    });
  }
  if (error instanceof IoError || error instanceof SystemError) {
    return new NemuError('IMAGE', error.message, { cause: error });
  }
  const { code, path } = error as NodeJS.ErrnoException;
  if (code && path) return new NemuError('IMAGE', `${path}: ${(error as Error).message}`, { cause: error });
  return error;
}

export const messageOf = (error: unknown): string =>
  error instanceof NemuError ? [error.text, error.hint].filter(Boolean).join('\n') : String((error as Error).stack);

const OPTION_KEYS = {
  cluster_size: { kind: 'text', field: 'clusterSize' },
  compat: { kind: 'text', field: 'version' },
  refcount_bits: { kind: 'number', field: 'refcountBits' },
  lazy_refcounts: { kind: 'switch', field: 'lazyRefcounts' },
  extended_l2: { kind: 'switch', field: 'extendedL2' },
  compression_type: { kind: 'text', field: 'compression' },
  preallocation: { kind: 'text' },
} as const;

/** `-o cluster_size=64k,…`. */
export function formatOptions(text: string | undefined): FormatOptions {
  if (text === undefined) return {};
  const raw = parseKeyValues('--options', text, OPTION_KEYS);
  const one = (key: string, values: Record<string, unknown>) => {
    const value = raw[key];
    if (value === undefined) return;
    if (!Object.hasOwn(values, String(value))) {
      const near = didYouMean(String(value), Object.keys(values));
      throw new NemuError('USAGE', `--options: "${value}" is not one of ${Object.keys(values).join(', ')}.`, {
        ...(near && { hint: `Did you mean ${near}?` }),
      });
    }
    raw[key] = values[String(value)];
  };
  one('version', { '0.10': 2, v2: 2, '1.1': 3, v3: 3 });
  one('compression', { zlib: 'zlib', zstd: 'zstd' });
  one('preallocation', Object.fromEntries(PREALLOCATIONS.map((kind) => [kind, kind])));
  if (raw.clusterSize !== undefined) raw.clusterSize = parseSize(String(raw.clusterSize));
  return raw as FormatOptions;
}

/** What is not said is what the name's end says. */
export function formatOf(given: string | undefined, path: string): 'raw' | 'qcow2' {
  return imageFormat(given) ?? (/\.(img|raw|iso)$/i.test(path) || path.startsWith('/dev/') ? 'raw' : 'qcow2');
}

export const noteProgress = (what: string): { report: Progress; done: () => void } => {
  const line = new ProgressLine();
  // A log needs no bars.
  return {
    report: (done, total) => line.terminal && line.show(what, total > 0 ? done / total : 1),
    done: () => line.done(),
  };
};

export interface LookOptions {
  format?: string;
  json?: boolean;
  forceShare?: boolean;
}

export function open(path: string, options: LookOptions, readOnly: boolean): BlockImage {
  return openImage({ path, format: imageFormat(options.format), readOnly, unlocked: options.forceShare ?? false });
}

export function openQcow2(path: string, options: LookOptions, what: string): Qcow2Image {
  const image = open(path, options, false);
  if (image instanceof Qcow2Image) return image;
  image.close();
  throw new StorageError(`${path} is ${image.format}, which has no ${what}.`, 'Convert it: nemu image convert');
}

export function print(json: boolean | undefined, value: unknown, text: () => string): void {
  process.stdout.write(json ? `${JSON.stringify(value, null, 4)}\n` : `${text()}\n`);
}
