/** What is wrong with a call, in sentences for whoever wrote it. */
import { expect, test } from 'vitest';
import type * as z from 'zod';
import { throttleSchema } from '../../../src/client/description.ts';
import { tell } from '../../../src/client/explain.ts';
import { parsePlug, unplugSchema } from '../../../src/client/live.ts';
import { parseDiskChange } from '../../../src/client/live_change.ts';

const told = (schema: z.ZodType, value: unknown, names?: readonly string[]) =>
  tell(schema, value, schema.safeParse(value).error?.issues ?? [], names);

test('options are told with what they take', () => {
  expect(told(throttleSchema, { iops: -5 })).toBe('iops takes 1 or more (requests in a second), not -5.');
  expect(told(throttleSchema, { bps: 'fast' })).toBe('bps takes a number (bytes in a second), not "fast".');
  expect(told(throttleSchema, { ipos: 5 })).toBe('ipos: There is no such field. Did you mean iops?');
  const names = ['id', 'options'];
  expect(told(unplugSchema, ['a', { forse: true }], names)).toBe('forse: There is no such field. Did you mean force?');
  expect(told(unplugSchema, ['a', { timeoutMs: 'soon' }], names)).toMatch(
    /^timeoutMs takes a number \(milliseconds .*\), not "soon"\.$/,
  );
  expect(told(unplugSchema, [5], names)).toBe('id takes text, not 5.');
});

test('so are those of what is plugged or changed', () => {
  expect(() => parsePlug({ kind: 'pci', type: 'virtio-blk' })).toThrow('file is missing: it takes text');
  expect(() => parseDiskChange({ action: 'resize', size: '1G', shrnk: true })).toThrow(
    'A disk cannot be changed like this: shrnk: There is no such field. Did you mean shrink?',
  );
  expect(() => parseDiskChange({ action: 'medium', file: 'a', format: 'vmdk' })).toThrow(
    'format takes raw or qcow2 (found out by the first bytes where it is not said), not "vmdk".',
  );
});
