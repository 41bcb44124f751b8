/** `nemu describe` and `nemu apply`: a machine in the background as `machine.yaml`, and made like another one. */
import { inspect } from 'node:util';
import { Vm } from '../../repl/vm.ts';
import { EXIT } from '../exit_codes.ts';
import type { AttachedMachine } from './connection.ts';

interface JsonOption {
  readonly json?: boolean;
}

const json = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`;

/** Prints the machine as it is now. @returns the exit status. */
export async function runDescribe({ machine, share }: AttachedMachine, options: JsonOption): Promise<number> {
  const description = await new Vm({ machine, guest: share.guest }).describe();
  process.stdout.write(options.json ? json(description) : description.text);
  return EXIT.OK;
}

export interface ApplyOptions extends JsonOption {
  readonly to?: string;
  readonly dryRun?: boolean;
}

/** @returns the exit status. @throws NemuError DESCRIPTION, APPLY */
export async function runApply(
  { machine, share }: AttachedMachine,
  file: string,
  options: ApplyOptions,
): Promise<number> {
  const plan = await new Vm({ machine, guest: share.guest }).apply(file, { dryRun: options.dryRun ?? false });
  process.stdout.write(options.json ? json(plan) : `${inspect(plan)}\n`);
  return EXIT.OK;
}
