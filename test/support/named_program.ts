/** Scripted machines that have names, as those in the background do: `node named_program.ts NAME...`. No guest is run. */

import { serveControl } from '../../src/cli/control_socket.ts';
import { runtimePaths, statePaths } from '../../src/cli/machines/folders.ts';
import { claimName } from '../../src/cli/machines/name_lock.ts';
import { type MachineRecord, writeRecord } from '../../src/cli/machines/records.ts';
import type { EndState } from '../../src/client/machine_client.ts';
import { ConsoleLog } from '../../src/console/console_log.ts';
import { MachineConsoles } from '../../src/console/machine_consoles.ts';
import { ScriptedMachine } from './scripted_machine.ts';

/** What asks it to end has its answer first. */
const END_MS = 200;

class EndingMachine extends ScriptedMachine {
  readonly #ended: (end: EndState) => void;

  constructor(ended: (end: EndState) => void) {
    super({ busy: true });
    this.#ended = ended;
  }

  override async powerButton(): Promise<void> {
    setTimeout(() => this.#ended({ reason: 'poweroff', detail: 'The guest powered off.' }), END_MS);
  }

  async close(): Promise<void> {
    setTimeout(() => this.#ended({ reason: 'quit', detail: 'It was closed.' }), END_MS);
  }
}

async function serve(name: string): Promise<void> {
  const release = claimName(name);
  if (!release) throw new Error(`Somebody has the name ${name}.`);
  const record: MachineRecord = {
    ...{ name, pid: process.pid, startedAt: new Date().toISOString(), running: true, kernel: '/boot/vmlinuz' },
    ...{ cpus: 4, memory: 2 ** 30, consoles: ['com1', 'hvc0'] },
  };
  writeRecord(record);
  const { client } = new EndingMachine(({ reason, detail }) => {
    writeRecord({ ...record, end: { at: new Date().toISOString(), reason, detail, status: 0 } });
    end();
    release();
  });
  const taps = (console: string) => [new ConsoleLog(statePaths(name).console(console), () => {})];
  const consoles = new MachineConsoles(client, { names: client.consoles, taps });
  const end = await serveControl(runtimePaths(name).control, client, { consoles });
}

for (const name of process.argv.slice(2)) await serve(name);
process.stdout.write('ready\n');
