import type { Duplex } from 'node:stream';
import type { Caller } from './command.ts';
import { QmpError, toQmpError } from './errors.ts';
import type { QmpEvent } from './events.ts';
import { encode, isObject, type Json, JsonError, JsonLimitError, type JsonObject, JsonStream } from './json.ts';
import type { Monitor } from './monitor.ts';
import { parseArguments } from './types.ts';
import { VERSION } from './version.ts';

/** Commands that wait for the one before them; a peer that sends more is not read meanwhile (as in QEMU). */
const QUEUE_LENGTH = 8;
/** Output that a peer has not taken: a peer that is this far behind is gone. */
const MAX_OUTPUT = 16 << 20;
const LAST_ANSWER_MS = 5000;

interface Request {
  /** The name of the command, and whether it goes ahead of the queue. */
  readonly command: string;
  readonly oob: boolean;
  readonly args: JsonObject;
  readonly id: Json | undefined;
}
type Waiting = Request | { readonly failed: QmpError; readonly id: Json | undefined };

/**
 * One peer: reads its commands, runs them one after the other (those out of band at once), and sends answers and events.
 * A peer that sends faster than it is served, or does not read its answers, is not read further; no peer holds up the
 * machine or another peer.
 */
export class QmpSession implements Caller {
  readonly ended: Promise<void>;
  readonly #stream: Duplex;
  readonly #monitor: Monitor;
  readonly #parser = new JsonStream();
  readonly #queue: Waiting[] = [];
  #busy = false;
  #ending = false;
  #negotiated = false;
  #oob = false;

  constructor(stream: Duplex, monitor: Monitor) {
    this.#stream = stream;
    this.#monitor = monitor;
    const unsubscribe = monitor.subscribe((event) => this.#event(event));
    this.ended = new Promise((resolve) => {
      stream.once('close', () => {
        unsubscribe();
        this.#queue.length = 0;
        resolve();
      });
    });
    stream.on('error', () => stream.destroy());
    stream.once('end', () => this.#finish());
    stream.on('drain', () => this.#flow());
    stream.on('data', (bytes: Buffer) => this.#read(bytes));
    this.#send({ QMP: { version: VERSION, capabilities: ['oob'] } });
  }

  get negotiated(): boolean {
    return this.#negotiated;
  }

  negotiate(capabilities: readonly string[]): void {
    this.#negotiated = true;
    this.#oob = capabilities.includes('oob');
  }

  #read(bytes: Uint8Array): void {
    for (const value of this.#parser.push(bytes)) {
      if (value instanceof JsonLimitError) {
        this.#send({ error: { class: 'GenericError', desc: value.message } });
        this.#close();
        return;
      }
      this.#take(value);
    }
    this.#flow();
  }

  #take(value: Json | JsonError): void {
    const id = isObject(value) ? value.id : undefined;
    let request: Waiting;
    try {
      if (value instanceof JsonError) throw new QmpError(value.message);
      request = this.#check(value);
    } catch (error) {
      request = { failed: toQmpError(error), id };
    }
    if ('oob' in request && request.oob) void this.#run(request);
    else {
      this.#queue.push(request);
      void this.#work();
    }
  }

  /** @throws QmpError for what is no command. */
  #check(value: Json): Request {
    if (!isObject(value)) throw new QmpError('QMP input must be a JSON object');
    let command: { readonly name: string; readonly key: string } | undefined;
    for (const [key, member] of Object.entries(value)) {
      if (key === 'execute' || (key === 'exec-oob' && this.#oob)) {
        if (typeof member !== 'string') throw new QmpError(`QMP input member '${key}' must be a string`);
        if (command) throw new QmpError(`QMP input member '${key}' clashes with '${command.key}'`);
        command = { name: member, key };
      } else if (key === 'arguments') {
        if (!isObject(member)) throw new QmpError("QMP input member 'arguments' must be an object");
      } else if (key !== 'id') throw new QmpError(`QMP input member '${key}' is unexpected`);
    }
    if (!command) throw new QmpError("QMP input lacks member 'execute'");
    return {
      ...{ command: command.name, oob: command.key === 'exec-oob', id: value.id },
      args: (value.arguments ?? {}) as JsonObject,
    };
  }

  async #work(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    for (let next = this.#queue.shift(); next; next = this.#queue.shift()) {
      await this.#run(next);
      this.#flow();
    }
    this.#busy = false;
    if (this.#ending) this.#close();
  }

  async #run(request: Waiting): Promise<void> {
    const { id } = request;
    try {
      if ('failed' in request) throw request.failed;
      this.#allow(request);
      const result = await this.#monitor.execute(request.command, request.args, this);
      this.#send({ return: result ?? {}, id });
    } catch (error) {
      const { errorClass, message } = toQmpError(error);
      this.#send({ id, error: { class: errorClass, desc: message } });
    }
  }

  /** @throws QmpError for a command that this peer cannot have now. */
  #allow({ command: name, oob, args }: Request): void {
    const command = this.#monitor.commands.get(name);
    const first = command?.first ?? false;
    if (!this.#negotiated && !first) {
      throw new QmpError("Expecting capabilities negotiation with 'qmp_capabilities'", 'CommandNotFound');
    }
    if (this.#negotiated && command && first) {
      // What is wrong with the arguments is told first.
      parseArguments(command.args, args);
      throw new QmpError('Capabilities negotiation is already complete, command ignored', 'CommandNotFound');
    }
    if (oob && command && !command.oob) throw new QmpError(`The command ${name} does not support OOB`);
  }

  #event({ event, data }: QmpEvent): void {
    if (!this.#negotiated) return;
    const now = performance.timeOrigin + performance.now();
    const seconds = Math.floor(now / 1000);
    const timestamp = { seconds, microseconds: Math.min(999_999, Math.floor((now - seconds * 1000) * 1000)) };
    this.#send({ timestamp, event, ...(Object.keys(data).length > 0 && { data }) });
  }

  #send(message: unknown): void {
    const { destroyed, writableEnded } = this.#stream;
    if (destroyed || writableEnded) return;
    this.#stream.write(`${encode(message)}\r\n`);
    if (this.#stream.writableLength > MAX_OUTPUT) this.#stream.destroy();
  }

  /** Reads on while the peer is served and takes its answers. */
  #flow(): void {
    if (this.#queue.length >= QUEUE_LENGTH || this.#stream.writableNeedDrain) this.#stream.pause();
    else if (this.#stream.isPaused()) this.#stream.resume();
  }

  /** The peer says no more; what it asked for is still answered. */
  #finish(): void {
    this.#ending = true;
    if (!this.#busy) this.#close();
  }

  #close(): void {
    const destroy = () => void this.#stream.destroy();
    this.#stream.end(destroy);
    // Whoever does not take the last answer does not get it.
    setTimeout(destroy, LAST_ANSWER_MS).unref();
  }
}
