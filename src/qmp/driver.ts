/** A device that `device_add` makes: its properties, and the plug request that it stands for. */
import type * as z from 'zod';
import type { PlugInput } from '../client/live.ts';
import type { JsonObject } from './json.ts';
import type { Monitor } from './monitor.ts';

/** What there is to plug. `taken` are objects of the peer's that go into it. */
export interface Plan {
  /** Undefined for what is a name here alone. */
  readonly device?: PlugInput;
  /** The id that the machine gives it. */
  readonly id: string;
  /** Marks what the device uses as taken, once the machine has said that it can be. */
  readonly take: () => void;
}

export interface Driver {
  readonly name: string;
  readonly summary: string;
  readonly properties: z.ZodObject;
  plan(monitor: Monitor, id: string | undefined, properties: JsonObject): Plan | Promise<Plan>;
}

interface Definition<S extends z.ZodObject> {
  readonly name: string;
  readonly summary: string;
  readonly properties: S;
  plan(monitor: Monitor, id: string | undefined, properties: z.output<S>): Plan | Promise<Plan>;
}
export const driver = <S extends z.ZodObject>(definition: Definition<S>): Driver => definition as unknown as Driver;
