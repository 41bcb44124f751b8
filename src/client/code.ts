/** Values and calls as the code that a reader could type. */
import { inspect } from 'node:util';

/** A value as code. */
export const literal = (value: unknown) => inspect(value, { breakLength: Number.POSITIVE_INFINITY, depth: 4 });

/** Options as the last argument of a call, where there are some. */
export const given = (options: object) => (Object.keys(options).length > 0 ? `, ${literal(options)}` : '');

/** A member of an object, as code has it: `vm.disks.vda`, `vm.disks['data-1']`. */
export const memberCode = (object: string, name: string) =>
  /^[A-Za-z_$][\w$]*$/.test(name) ? `${object}.${name}` : `${object}[${literal(name)}]`;
