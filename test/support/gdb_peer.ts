/** gdb's end of the protocol, by hand. */
import { type Duplex, duplexPair } from 'node:stream';
import { encodePacket, type Incoming, PacketDecoder } from '../../src/gdb/packets.ts';
import { serveGdb } from '../../src/gdb/server.ts';
import type { GdbOptions } from '../../src/gdb/session.ts';
import type { GdbMachine } from './gdb_machine.ts';

export class GdbPeer {
  readonly stream: Duplex;
  readonly served: Promise<void>;
  ended = false;
  readonly #decoder = new PacketDecoder();
  readonly #packets: string[] = [];
  readonly seen: Incoming['type'][] = [];
  #waiters: (() => void)[] = [];

  constructor(machine: GdbMachine, options: GdbOptions = {}) {
    const [stream, other] = duplexPair();
    this.stream = stream;
    this.served = serveGdb(other, machine.client, options);
    stream.on('data', (bytes: Buffer) => {
      for (const incoming of this.#decoder.push(bytes)) {
        this.seen.push(incoming.type);
        if (incoming.type === 'packet') this.#packets.push(incoming.body.toString('latin1'));
      }
      this.#wake();
    });
    stream.on('error', () => {});
    stream.once('end', () => {
      this.ended = true;
      this.#wake();
    });
  }

  #wake(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }

  write(bytes: string | Uint8Array): void {
    this.stream.write(bytes);
  }

  send(body: string | Uint8Array): void {
    this.write(encodePacket(body));
  }

  /** The next packet; undefined when the stream has ended. */
  async next(): Promise<string | undefined> {
    while (this.#packets.length === 0 && !this.ended) {
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
    return this.#packets.shift();
  }

  ask(body: string | Uint8Array): Promise<string | undefined> {
    this.send(body);
    return this.next();
  }

  async close(): Promise<void> {
    this.stream.destroy();
    await this.served;
  }
}
