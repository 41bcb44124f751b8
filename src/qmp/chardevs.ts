/** What `chardev-add` makes: what is at the host's end of a virtio console or port. */
import { chmodSync, existsSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import * as z from 'zod';
import { ConsoleInput, LEAVE_MS } from '../client/console_input.ts';
import { isDeadSocket } from '../client/dead_socket.ts';
import type { SharedConsole } from '../client/shared_console.ts';
import { QmpError } from './errors.ts';
import { NO_FILE, reasonOf } from './files.ts';
import { RingBuffer } from './ring_buffer.ts';
import type { ConsoleTerminal, Surroundings } from './surroundings.ts';
import { bool, int, str } from './types.ts';

const unix = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('unix'), data: z.strictObject({ path: str.min(1) }) }),
]);
const data = <S extends z.core.$ZodLooseShape>(shape: S) => z.strictObject({ data: z.strictObject(shape) }).shape;

export const chardevBackend = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('null'), ...data({}) }),
  z.strictObject({ type: z.literal('pty'), ...data({}) }),
  z.strictObject({ type: z.literal('ringbuf'), ...data({ size: int.optional() }) }),
  z.strictObject({
    type: z.literal('socket'),
    ...data({ addr: unix, server: bool.optional(), wait: bool.optional() }),
  }),
]);
type Backend = z.output<typeof chardevBackend>;

/** Backends that there are, for `query-chardev-backends`. */
export const CHARDEV_BACKENDS = chardevBackend.options.map((each) => each.shape.type.value);

const RING_SIZE = 65536;
const MAX_RING = 64 << 20;

export interface Chardev {
  readonly id: string;
  /** What stands for it in `query-chardev`. */
  readonly filename: string;
  readonly ring?: RingBuffer;
  /** Name of the console or port whose device has it. */
  usedBy: string | undefined;
  /** A console is to have it. @throws SystemError where the host has no more of what it needs. */
  prepare?(): void;
  /** The console is there. */
  connect?(console: string): void;
  /** It is gone. */
  disconnect?(): void;
  close?(): void;
}

/** Bytes of a socket's path: struct sockaddr_un, without the NUL. */
const MAX_SOCKET_PATH = 107;

/** A program at a unix socket, one at a time as in QEMU. */
class SocketChardev {
  readonly #server: Server;
  readonly #open: (console: string) => SharedConsole | undefined;
  #console: string | undefined;
  #peer: { readonly socket: Socket; readonly viewer: SharedConsole } | undefined;

  private constructor(server: Server, open: (console: string) => SharedConsole | undefined) {
    this.#server = server;
    this.#open = open;
    server.on('connection', (socket) => this.#come(socket));
  }

  static async listen(path: string, open: (console: string) => SharedConsole | undefined): Promise<SocketChardev> {
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
    // Whoever opens it drives the console.
    chmodSync(path, 0o600);
    server.unref();
    return new SocketChardev(server, open);
  }

  get connected(): boolean {
    return this.#peer !== undefined;
  }

  connect(console: string): void {
    this.#console = console;
  }

  disconnect(): void {
    this.#console = undefined;
    this.#peer?.socket.destroy();
  }

  #come(socket: Socket): void {
    socket.on('error', () => socket.destroy());
    const viewer = this.#peer || this.#console === undefined ? undefined : this.#open(this.#console);
    if (!viewer) {
      socket.destroy();
      return;
    }
    const peer = { socket, viewer };
    this.#peer = peer;
    const print = (bytes: Uint8Array) => {
      if (!socket.write(bytes)) viewer.onData = undefined;
    };
    socket.on('drain', () => {
      viewer.onData = print;
    });
    const typed = new ConsoleInput(viewer, () => typed.waiting === 0 && socket.resume());
    socket.on('data', (bytes) => {
      // To write is to ask for it: a program has no other way.
      if (viewer.role !== 'driver') viewer.takeOver();
      typed.send(bytes);
      if (typed.waiting > 0) socket.pause();
    });
    socket.once('close', () => {
      viewer.onData = undefined;
      void typed.drained(LEAVE_MS).then(() => viewer.close());
      if (this.#peer === peer) this.#peer = undefined;
    });
    viewer.onData = print;
  }

  close(): void {
    this.disconnect();
    this.#server.close();
  }
}

export class Chardevs {
  readonly #surroundings: Surroundings;
  readonly #all = new Map<string, Chardev>();

  constructor(surroundings: Surroundings) {
    this.#surroundings = surroundings;
  }

  get all(): Chardev[] {
    return [...this.#all.values()];
  }

  get(id: string): Chardev | undefined {
    return this.#all.get(id);
  }

  /** @returns the pseudo-terminal that was made. @throws QmpError */
  async add(id: string, backend: Backend): Promise<{ pty?: string }> {
    if (this.#all.has(id)) throw new QmpError(`Chardev with id '${id}' already exists`);
    const made = await this.#make(id, backend);
    if (this.#all.has(id)) {
      made.close?.();
      throw new QmpError(`Chardev with id '${id}' already exists`);
    }
    this.#all.set(id, made);
    return backend.type === 'pty' ? { pty: made.filename.slice('pty:'.length) } : {};
  }

  async #make(id: string, backend: Backend): Promise<Chardev> {
    const failed = (why: string) => new QmpError(`Failed to add chardev '${id}': ${why}`);
    switch (backend.type) {
      case 'null':
        return { id, filename: 'null', usedBy: undefined };
      case 'ringbuf': {
        const size = backend.data.size || RING_SIZE;
        if (size < 0 || !Number.isInteger(Math.log2(size)))
          throw failed('size of ringbuf chardev must be power of two');
        if (size > MAX_RING) throw failed(`a ringbuf has ${MAX_RING} bytes at most`);
        return this.#ring(id, new RingBuffer(size));
      }
      case 'pty':
        return this.#pty(id, failed);
      case 'socket':
        return this.#socket(id, backend.data, failed);
    }
  }

  #open(console: string, role: 'driver' | 'viewer'): SharedConsole | undefined {
    return this.#surroundings.consoles?.open(console, { role, label: 'a chardev' });
  }

  #ring(id: string, ring: RingBuffer): Chardev {
    let viewer: SharedConsole | undefined;
    const disconnect = () => {
      viewer?.close();
      viewer = undefined;
    };
    return {
      ...{ id, filename: 'ringbuf', ring, usedBy: undefined, disconnect, close: disconnect },
      connect: (console) => {
        viewer = this.#open(console, 'viewer');
        if (viewer) viewer.onData = (bytes) => ring.write(bytes);
      },
    };
  }

  #pty(id: string, failed: (why: string) => QmpError): Chardev {
    const { terminal } = this.#surroundings;
    if (!terminal) throw failed('a machine whose consoles are shared has terminals: nemu run --name');
    let made: ConsoleTerminal | undefined = terminal();
    // It goes with the console that it stood for: the next one has another.
    const disconnect = () => {
      made?.close();
      made = undefined;
    };
    return {
      ...{ id, usedBy: undefined, disconnect, close: disconnect },
      get filename() {
        return made ? `pty:${made.path}` : 'pty';
      },
      prepare: () => {
        made ??= terminal();
      },
      connect: (console) => made?.connect(console),
    };
  }

  async #socket(
    id: string,
    { addr, server = true, wait = false }: Extract<Backend, { type: 'socket' }>['data'],
    failed: (why: string) => QmpError,
  ): Promise<Chardev> {
    if (!server) throw failed('a console listens, and is not a client: server must be true');
    if (wait) throw failed('nobody is waited for: wait must be false');
    const { path } = addr.data;
    if (Buffer.byteLength(path) > MAX_SOCKET_PATH) throw failed(`UNIX socket path '${path}' is too long`);
    if (await isDeadSocket(path)) rmSync(path, { force: true });
    const socket = await SocketChardev.listen(path, (console) => this.#open(console, 'driver')).catch(
      (error: NodeJS.ErrnoException) => {
        // Node says EACCES for a folder that there is not.
        const why = existsSync(dirname(path)) ? reasonOf(error) : NO_FILE;
        throw failed(`Failed to bind socket to ${path}: ${why}`);
      },
    );
    return {
      ...{ id, usedBy: undefined },
      get filename() {
        return `${socket.connected ? '' : 'disconnected:'}unix:${path},server=on`;
      },
      connect: (console) => socket.connect(console),
      disconnect: () => socket.disconnect(),
      close: () => socket.close(),
    };
  }

  /** A console or port has come, or has gone. */
  changed(console: string, change: 'added' | 'removed'): void {
    const mine = this.all.find(({ usedBy }) => usedBy === console);
    if (change === 'added') mine?.connect?.(console);
    else mine?.disconnect?.();
  }

  release(console: string): void {
    for (const each of this.#all.values()) if (each.usedBy === console) each.usedBy = undefined;
  }

  /** @throws QmpError */
  remove(id: string): void {
    const chardev = this.#all.get(id);
    if (!chardev) throw new QmpError(`Chardev '${id}' not found`);
    if (chardev.usedBy !== undefined) throw new QmpError(`Chardev '${id}' is busy`);
    chardev.close?.();
    this.#all.delete(id);
  }

  close(): void {
    for (const each of this.#all.values()) each.close?.();
    this.#all.clear();
  }
}
