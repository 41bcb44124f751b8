/** A stock guest that runs what the test sends it line by line, while the test changes its machine. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { onTestFinished } from 'vitest';
import type { MachineClient } from '../../src/client/machine_client.ts';
import { EngineConnection } from '../../src/client/remote.ts';
import { type CliResult, runNemu } from './cli.ts';

const LOOP = 'echo READY; while read -r line; do eval "$line"; echo "DONE"; done';

/** What the guest's command said that nobody has read yet. */
interface Output {
  text: string;
  input: Writable | undefined;
  heard: () => void;
}

export class LiveGuest {
  /** The machine, through its control socket. */
  readonly machine: MachineClient;
  readonly #ended: Promise<CliResult>;
  readonly #output: Output;
  readonly #supervisor: number;

  private constructor(machine: MachineClient, ended: Promise<CliResult>, output: Output, supervisor: number) {
    this.machine = machine;
    this.#ended = ended;
    this.#output = output;
    this.#supervisor = supervisor;
  }

  /** Boots the default guest. @param options of `nemu run`. */
  static async boot(options: readonly string[]): Promise<LiveGuest> {
    const folder = mkdtempSync(join(tmpdir(), 'nemu-live-'));
    const socket = join(folder, 'control');
    const output: Output = { text: '', input: undefined, heard: () => {} };
    let supervisor = 0;
    const ended = runNemu(['run', '--control', socket, ...options, '--', LOOP], {
      keepInput: true,
      started: (pid) => {
        supervisor = pid;
      },
      onOutput: (text, input) => {
        output.text += text;
        output.input = input;
        output.heard();
      },
    });
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    let over = false;
    void ended.finally(() => {
      over = true;
      output.heard();
    });
    while (!over) {
      try {
        // Others may not even look.
        if ((statSync(socket).mode & 0o777) !== 0o600) throw new Error('The control socket is open to others.');
        const stream = connect(socket);
        const connected = Promise.withResolvers<void>();
        stream.once('connect', connected.resolve).once('error', connected.reject);
        await connected.promise;
        const guest = new LiveGuest(await new EngineConnection(stream).attach(), ended, output, supervisor);
        await guest.ready();
        return guest;
      } catch (error) {
        if (!['ENOENT', 'ECONNREFUSED'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
        await sleep(100);
      }
    }
    throw new Error(`The guest did not start: ${(await ended).stderr}`);
  }

  async #until(mark: string): Promise<string> {
    let over = false;
    void this.#ended.finally(() => {
      over = true;
    });
    for (;;) {
      const at = this.#output.text.indexOf(mark);
      if (at >= 0) {
        const before = this.#output.text.slice(0, at);
        this.#output.text = this.#output.text.slice(at + mark.length);
        return before.replaceAll('\r', '').trim();
      }
      if (over) throw new Error(`The guest ended before it said ${mark}: ${this.#output.text}`);
      await new Promise<void>((resolve) => {
        this.#output.heard = resolve;
      });
    }
  }

  /** Resolves when the guest takes lines: after its start, and after each reset. */
  async ready(): Promise<void> {
    await this.#until('READY\n');
  }

  /** What a line of shell prints. */
  async sh(line: string): Promise<string> {
    this.#output.input?.write(`${line}\n`);
    return this.#until('DONE\n');
  }

  /** Kills the engine, and with it the lab when it is in one: what only that had in memory is lost. */
  async kill(): Promise<void> {
    for (const pid of childrenOf(this.#supervisor)) {
      for (const child of childrenOf(pid)) process.kill(child, 'SIGKILL');
      process.kill(pid, 'SIGKILL');
    }
    await this.#ended;
  }

  /** Has the guest power off. */
  async end(): Promise<CliResult> {
    this.#output.input?.end();
    return this.#ended;
  }
}

function childrenOf(parent: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return Number(readFileSync(`/proc/${pid}/stat`, 'latin1').replace(/.*\) /s, '').split(' ')[1]) === parent;
      } catch {
        // It ended meanwhile.
        return false;
      }
    })
    .map(Number);
}
