/** A client of the protocol, for `nemu qmp`: it speaks to NEMU and to QEMU. */
import { connect, type Socket } from 'node:net';
import { NemuError } from '../client/errors.ts';
import type { SchemaInfo } from './introspect.ts';
import { encode, isObject, type Json, JsonError, type JsonObject, JsonStream } from './json.ts';

/** The server's answer that it did not do what it was asked. */
export class QmpCommandError extends Error {
  readonly errorClass: string;
  constructor(errorClass: string, description: string) {
    super(description);
    this.errorClass = errorClass;
  }
}

export interface QmpNotice {
  readonly event: string;
  readonly data?: JsonObject;
  readonly timestamp: { readonly seconds: number; readonly microseconds: number };
}

/** How long a server may take to greet a client. */
const GREETING_MS = 5000;

/** A property's type as the schema would have it: what is no number and no truth value is written as text. */
function typeOfProperty(type: string): string {
  if (type === 'bool') return type;
  return /^(u?int\d*|size)$/.test(type) ? 'int' : 'str';
}

const text = (value: Json | undefined) => (typeof value === 'string' ? value : '');

/** Answers of QEMU's schema are large; a server is trusted more than a client. */
const LIMITS = { bytes: 64 << 20, tokens: 4_000_000, nesting: 1024 };

export class QmpClient {
  onEvent: ((notice: QmpNotice) => void) | undefined;
  /** Told once the server is gone. */
  onClose: (() => void) | undefined;
  /** What the server says that it is: `7.2.0 (NEMU 0.1.0)`. */
  version = '';
  readonly #socket: Socket;
  readonly #parser = new JsonStream(LIMITS);
  readonly #greeting = Promise.withResolvers<void>();
  readonly #waiting = new Map<number, PromiseWithResolvers<Json>>();
  #schema: Promise<Schema> | undefined;
  #next = 1;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#greeting.promise.catch(() => {});
    socket.on('data', (bytes: Buffer) => {
      for (const message of this.#parser.push(bytes)) {
        if (message instanceof JsonError || !isObject(message)) socket.destroy();
        else this.#take(message);
      }
    });
    socket.on('error', () => socket.destroy());
    socket.once('close', () => {
      const error = new NemuError('CONNECTION', 'The QMP server ended the connection.');
      this.#greeting.reject(error);
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
      this.onClose?.();
    });
  }

  /**
   * Connects and negotiates.
   * @throws NemuError QMP_SOCKET where nobody listens, CONNECTION when the server hangs up, NO_ANSWER when it says
   * nothing.
   */
  static async connect(path: string, patience = GREETING_MS): Promise<QmpClient> {
    const socket = connect(path);
    const client = new QmpClient(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', (cause: NodeJS.ErrnoException) =>
        reject(
          new NemuError('QMP_SOCKET', `There is no QMP server at ${path}: ${cause.message}.`, {
            hint: `Start a machine with --qmp ${path}.`,
            cause,
          }),
        ),
      );
    });
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      late.reject(
        new NemuError('NO_ANSWER', `The QMP server at ${path} does not answer.`, {
          hint: 'Its process hangs or is stopped, or it has another client: QEMU serves one at a time.',
        }),
      );
      socket.destroy();
    }, patience);
    try {
      const ready = client.#greeting.promise.then(() => client.execute('qmp_capabilities'));
      await Promise.race([ready, late.promise]);
    } finally {
      clearTimeout(timer);
    }
    return client;
  }

  #take(message: JsonObject): void {
    if (isObject(message.QMP)) {
      const version = isObject(message.QMP.version) ? message.QMP.version : {};
      const { major, minor, micro } = isObject(version.qemu) ? version.qemu : {};
      this.version = `${major}.${minor}.${micro} (${text(version.package)})`;
      this.#greeting.resolve();
    } else if (typeof message.event === 'string') {
      this.onEvent?.(message as unknown as QmpNotice);
    } else {
      const waiting = typeof message.id === 'number' ? this.#waiting.get(message.id) : undefined;
      this.#waiting.delete(message.id as number);
      if (isObject(message.error)) {
        waiting?.reject(new QmpCommandError(text(message.error.class), text(message.error.desc)));
      } else waiting?.resolve(message.return ?? null);
    }
  }

  /** @throws QmpCommandError */
  execute(command: string, args: JsonObject = {}): Promise<Json> {
    return this.send({ execute: command, ...(Object.keys(args).length > 0 && { arguments: args }) });
  }

  /** A message as it is, but with an id of ours: answers are told apart by it. @throws QmpCommandError */
  send(message: JsonObject): Promise<Json> {
    const id = this.#next++;
    const waiting = Promise.withResolvers<Json>();
    if (this.#socket.destroyed) {
      waiting.reject(new NemuError('CONNECTION', 'The QMP server ended the connection.'));
      return waiting.promise;
    }
    this.#waiting.set(id, waiting);
    this.#socket.write(`${encode({ ...message, id })}\n`);
    return waiting.promise;
  }

  /** Commands, events and types of this server. */
  schema(): Promise<Schema> {
    this.#schema ??= this.execute('query-qmp-schema').then((infos) => new Schema(infos as unknown as SchemaInfo[]));
    return this.#schema;
  }

  /** What a device takes besides what the schema has of `device_add`; nothing for one that there is not. */
  async propertiesOf(driver: string): Promise<Member[]> {
    try {
      const listed = (await this.execute('device-list-properties', { typename: driver })) as readonly JsonObject[];
      return listed.map(({ name, type, description }) => ({
        ...{ name: text(name), type: typeOfProperty(text(type)), optional: true },
        ...(description !== undefined && { description: text(description) }),
      }));
    } catch (error) {
      if (error instanceof QmpCommandError) return [];
      throw error;
    }
  }

  /** Devices that there are, by name. */
  async drivers(): Promise<string[]> {
    return this.listOf('qom-list-types', 'name', { implements: 'device', abstract: false });
  }

  /** What each entry of a list has under a name; nothing where the server does not tell. */
  async listOf(command: string, field: string, args: JsonObject = {}): Promise<string[]> {
    try {
      const listed = (await this.execute(command, args)) as readonly JsonObject[];
      return listed.map((each) => text(each[field])).filter(Boolean);
    } catch (error) {
      if (error instanceof QmpCommandError) return [];
      throw error;
    }
  }

  /** What the human monitor says to a line; nothing where there is none. */
  async monitor(line: string): Promise<string> {
    if (!(await this.schema()).commands.includes('human-monitor-command')) return '';
    return text(await this.execute('human-monitor-command', { 'command-line': line }));
  }

  close(): void {
    this.#socket.end();
    this.#socket.destroy();
  }
}

export interface Member {
  readonly name: string;
  readonly type: string;
  readonly optional: boolean;
  readonly description?: string;
}

/** A server's schema, to look things up in. */
export class Schema {
  readonly #infos: ReadonlyMap<string, SchemaInfo>;

  constructor(infos: readonly SchemaInfo[]) {
    this.#infos = new Map(infos.map((info) => [info.name, info]));
  }

  get commands(): string[] {
    return [...this.#infos.values()]
      .filter((info) => info['meta-type'] === 'command')
      .map(({ name }) => name)
      .sort();
  }

  get(name: string): SchemaInfo | undefined {
    return this.#infos.get(name);
  }

  /** Arguments of a command; those of every branch where it has branches. */
  argumentsOf(command: string): Member[] {
    const info = this.#infos.get(command);
    return info?.['meta-type'] === 'command' ? this.#members(info['arg-type']) : [];
  }

  /** The type of a member of a command's arguments, or of a member of that. */
  typeOf(command: string, [first, ...rest]: readonly string[]): string | undefined {
    const found = this.argumentsOf(command).find(({ name }) => name === first);
    return rest.reduce<string | undefined>(
      (type, step) => (type === undefined ? undefined : this.#memberType(type, step)),
      found?.type,
    );
  }

  #memberType(type: string, name: string): string | undefined {
    const info = this.#infos.get(type);
    // Of an alternate, the branch that has members is meant.
    if (info?.['meta-type'] === 'alternate') {
      return info.members.map((each) => this.#memberType(each.type, name)).find((each) => each !== undefined);
    }
    return this.#members(type).find((each) => each.name === name)?.type;
  }

  #members(type: string): Member[] {
    const info = this.#infos.get(type);
    if (info?.['meta-type'] !== 'object') return [];
    const own = info.members.map((each) => ({ name: each.name, type: each.type, optional: 'default' in each }));
    const branches = (info.variants ?? []).flatMap((each) => this.#members(each.type));
    const names = new Set(own.map(({ name }) => name));
    // A member that not every branch has need not be there.
    const more = branches.filter(({ name }) => !names.has(name) && names.add(name));
    return [...own, ...more.map((each) => ({ ...each, optional: true }))];
  }

  /** Values that a type can have, where it is an enumeration or a truth value. */
  valuesOf(type: string): string[] {
    const info = this.#infos.get(type);
    if (info?.['meta-type'] === 'enum') return info.members?.map(({ name }) => name) ?? info.values;
    return type === 'bool' ? ['true', 'false'] : [];
  }

  /** A value as the type has it, from what was typed: text stays text where text is wanted. */
  convert(type: string, typed: string): Json {
    const info = this.#infos.get(type);
    if (info?.['meta-type'] === 'enum' || type === 'str') return typed;
    try {
      const [value, ...rest] = new JsonStream().push(Buffer.from(`${typed}\n`));
      if (value !== undefined && !(value instanceof JsonError) && rest.length === 0) return value;
    } catch {
      // It is text, then.
    }
    return typed === 'on' ? true : typed === 'off' ? false : typed;
  }
}
