/** Persistent memory on a file: `--nvdimm`, `nvdimms:` in a file, and what is plugged. */
import * as z from 'zod';
import { byteSize, byteSizeOrNone } from './sizes.ts';

const KiB = 1024;
const MiB = KiB * KiB;

/** The least that Linux takes a label area from (QEMU's MIN_NAMESPACE_LABEL_SIZE), and more than anybody needs. */
const LEAST_LABELS = 128 * KiB;
const MOST_LABELS = 16 * MiB;

export const nvdimmFields = {
  file: z.string().min(1).describe('file behind the memory; it is made when it does not exist'),
  size: byteSize.optional().describe('bytes of persistent memory; what an existing file has, without'),
  labelSize: byteSizeOrNone
    .prefault(0)
    .describe('bytes of the label area, which stands behind the memory in the file: 128K and more, or none'),
  readonly: z.boolean().default(false).describe('the guest cannot write to it'),
  share: z.boolean().default(true).describe('off: what the guest writes is lost with the machine'),
  node: z.int().min(0).max(127).default(0).describe('NUMA node of the guest'),
} as const;

/** What can be mapped as persistent memory. */
const isPmemSize = (size: number): boolean => size % 4096 === 0 && size >= 2 * MiB;

/** What is wrong with the size of a virtio-pmem. */
export const problemOfPmem = ({ size }: { readonly size?: number | undefined }): string | undefined =>
  size === undefined || isPmemSize(size)
    ? undefined
    : `A virtio-pmem of ${size} bytes is not a multiple of the page size, 4096, of 2 MiB or more.`;

/** What of an NVDIMM contradicts itself. */
export function checkNvdimm(
  { size, labelSize }: { readonly size?: number | undefined; readonly labelSize: number },
  problem: (message: string) => void,
): void {
  if (size !== undefined && !isPmemSize(size)) {
    problem(`An NVDIMM of ${size} bytes is not a multiple of the page size, 4096, of 2 MiB or more.`);
  }
  if (labelSize !== 0 && (labelSize < LEAST_LABELS || labelSize > MOST_LABELS || labelSize % 4096 !== 0)) {
    problem(`A label area of ${labelSize} bytes is not a multiple of 4096 from 128 KiB to 16 MiB.`);
  }
}

const ID = z
  .string()
  .regex(
    /^[A-Za-z][A-Za-z0-9._-]{0,31}$/,
    'An id starts with a letter and has letters, digits, dots, dashes and underscores.',
  );
const id = ID.optional().describe('name; nvdimm0, nvdimm1 and so on by its slot without one');

/** One that is there at boot. */
export const nvdimmSchema = z
  .strictObject({ id, ...nvdimmFields })
  .superRefine((nvdimm, context) => checkNvdimm(nvdimm, (message) => context.addIssue({ code: 'custom', message })));
export type NvdimmDescription = z.output<typeof nvdimmSchema>;

export const nvdimmPlugSchema = z
  .strictObject({
    kind: z.literal('nvdimm'),
    id,
    ...nvdimmFields,
    slot: z.int().min(0).max(255).optional().describe('the first that is free, without'),
  })
  .superRefine((nvdimm, context) => checkNvdimm(nvdimm, (message) => context.addIssue({ code: 'custom', message })));

/**
 * What the platform says that it does with data at a loss of power (ACPI specification 6.4, section 5.2.25.9), as
 * QEMU's `nvdimm-persistence`: nothing, or that memory controllers, or processors' caches too, reach the media.
 */
export const nvdimmPersistenceSchema = z.enum(['none', 'mem-ctrl', 'cpu']);
export type NvdimmPersistence = z.output<typeof nvdimmPersistenceSchema>;

export interface NvdimmDevice {
  readonly kind: 'nvdimm';
  readonly id: string;
  /** Its NFIT handle is one more. */
  readonly slot: number;
  /** Guest-physical. */
  readonly address: number;
  /** Bytes that the guest has as memory. */
  readonly size: number;
  readonly node: number;
  readonly file: string;
  /** Bytes behind those in the file. */
  readonly labelSize: number;
  readonly readonly: boolean;
  readonly share: boolean;
}

/** An NVDIMM with what became of its flushes. */
export interface NvdimmReport extends NvdimmDevice {
  /** Flushes that the guest asked for and that are done: data from before each is on the host's disk. */
  readonly flushes: number;
  /** Why a flush failed, the last that did, by the name of its errno. */
  readonly failed?: string;
}
