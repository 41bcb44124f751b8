/** Sizes in bytes, as people write them. */
import * as z from 'zod';
import { NemuError } from './errors.ts';

const UNITS: Record<string, number> = { '': 1, B: 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/**
 * Bytes from what people write: `512M`, `2G`, `1.5GiB`, `4096` (bytes).
 * @throws NemuError `SIZE_FORMAT`.
 */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:iB|B)?$/i.exec(text.trim());
  const bytes = match ? Number(match[1]) * UNITS[match[2].toUpperCase()] : Number.NaN;
  if (!Number.isSafeInteger(bytes)) {
    throw new NemuError('SIZE_FORMAT', `"${text}" is not a size.`, {
      hint: 'Write a number with K, M, G or T behind it, for example 512M or 2G.',
    });
  }
  return bytes;
}

/** Bytes as people read them: `1.5 GiB`. */
export function formatSize(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number(value.toFixed(2))} ${units[unit]}`;
}

/** What goes in and comes out of a size's schema: bytes, or what people write; bytes. */
export type ByteSize = z.ZodPipe<z.ZodTransform<unknown, number | string>, z.ZodNumber>;

// A union of types would answer a mistake with "invalid input" alone.
const readSize = (value: unknown, context: z.RefinementCtx) => {
  if (typeof value !== 'string') return value;
  try {
    return parseSize(value);
  } catch (error) {
    context.addIssue({ code: 'custom', message: (error as NemuError).text });
    return z.NEVER;
  }
};

/** A size in a description: bytes, or what people write. */
export const byteSize = (z.preprocess(readSize, z.number().int().positive()) as ByteSize).meta({ unit: 'bytes' });
/** The same where there may be nothing. */
export const byteSizeOrNone = (z.preprocess(readSize, z.number().int().nonnegative()) as ByteSize).meta({
  unit: 'bytes',
});
