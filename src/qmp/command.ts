import type * as z from 'zod';
import type { Monitor } from './monitor.ts';

/** Whose command it is: what it may touch of the connection. */
export interface Caller {
  /** Capabilities that may be asked for, and whether this caller has made its choice. */
  readonly negotiated: boolean;
  negotiate(capabilities: readonly string[]): void;
  /** What it asks for is a part of something that is written down already. */
  readonly inner?: boolean;
}

/** One command of the protocol: everything that is known of it, once. */
export interface Command<A extends z.ZodType = z.ZodType, R extends z.ZodType = z.ZodType> {
  readonly name: string;
  /** Half a sentence for the documentation and the shell. */
  readonly summary: string;
  readonly args: A;
  readonly returns: R;
  /** It may be run out of band: it takes no lock and answers at once. */
  readonly oob?: boolean;
  /** Before capabilities are negotiated. */
  readonly first?: boolean;
  readonly features?: readonly string[];
  /** It changes the machine, or something that the machine can have: it is written down. */
  readonly changes?: boolean;
  run(monitor: Monitor, args: z.output<A>, caller: Caller): z.input<R> | Promise<z.input<R>>;
}

/** Keeps a command's own types while it is written, and forgets them in the table. */
export const command = <A extends z.ZodType, R extends z.ZodType>(definition: Command<A, R>): Command =>
  definition as unknown as Command;

export interface EventDefinition {
  readonly name: string;
  readonly summary: string;
  readonly data: z.ZodType;
}
