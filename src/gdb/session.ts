/** One gdb on a machine: GDB's remote serial protocol, GDB manual, appendix E. What the peer says is checked here. */
import type { Duplex } from 'node:stream';
import type { DebugStop, RegisterValues } from '../client/debug.ts';
import { NemuError } from '../client/errors.ts';
import type { MachineClient, MachineEvent, VcpuReport } from '../client/machine_client.ts';
import { Breakpoints } from './breakpoints.ts';
import { DebuggerMemory } from './memory.ts';
import { encodePacket, type Incoming, PACKET_SIZE, PacketDecoder } from './packets.ts';
import { decodeAll, decodeRegister, encodeAll, encodeRegister, REGISTERS, TARGET_XML } from './registers.ts';

export interface GdbOptions {
  /** What `monitor` does in gdb. @returns what it prints. */
  readonly monitor?: (line: string, vcpu: number) => Promise<string>;
}

/** Signals by gdb's numbers: GDB_SIGNAL_INT and GDB_SIGNAL_TRAP. */
const [SIGINT, SIGTRAP] = ['02', '05'];
const EFAULT = 'E0e';
const EINVAL = 'E16';
/** How often a packet is sent again that the peer has not understood. */
const MAX_REPEATS = 16;
/** Bytes of output in one packet: two digits each, with room around them. */
const OUTPUT_PIECE = PACKET_SIZE / 2 - 16;
const MAX_READ = PACKET_SIZE / 2 - 16;
const MAX_ERROR = 400;

const ADDRESS = '([0-9a-f]{1,16})';
const LENGTH = '([0-9a-f]{1,8})';
const MEMORY = new RegExp(`^${ADDRESS},${LENGTH}$`, 'i');
const WRITE = new RegExp(`^${ADDRESS},${LENGTH}:`, 'i');
const BREAKPOINT = new RegExp(`^([0-4]),${ADDRESS},${LENGTH}$`, 'i');
const ACTION = /^([csCSt])([0-9a-f]{2})?(?::(-1|[0-9a-f]{1,4}))?$/i;

const parseHex = (text: string) => Number.parseInt(text, 16);
const textHex = (text: string) => Buffer.from(text).toString('hex');

/** An error as gdb shows it: one line of characters that need no escape. */
const errorText = ({ text }: NemuError) =>
  `E.${text
    .replace(/\s+/g, ' ')
    .replace(/[^ -~]/g, '-')
    .replace(/[#$}*]/g, "'")
    .slice(0, MAX_ERROR)}`;

const toNemuError = (error: unknown) =>
  error instanceof NemuError ? error : new NemuError('ENGINE', String((error as Error).message ?? error));

export class GdbSession {
  readonly #machine: MachineClient;
  readonly #stream: Duplex;
  readonly #options: GdbOptions;
  readonly #breakpoints: Breakpoints;
  readonly #decoder = new PacketDecoder();
  #acks = true;
  #last: Buffer | undefined;
  #repeats = 0;
  /** gdb wants to be told which kind of breakpoint was reached. */
  #saysKind = { swbreak: false, hwbreak: false };
  /** gdb waits for the machine to stop. */
  #running = false;
  #stop: DebugStop | undefined;
  /** vCPU of memory and registers, and the one that goes on by `c` and `s`. */
  #vcpu = 0;
  #next: number | undefined;
  #isPhysical = false;
  /** The machine has come to its end while gdb waited. */
  readonly #ended = Promise.withResolvers<void>();
  #over = false;
  #detached = false;
  /** What was read since the machine stopped. */
  readonly #registers = new Map<number, Promise<RegisterValues>>();
  #memory: Promise<DebuggerMemory> | undefined;
  #reports: Promise<VcpuReport[]> | undefined;

  constructor(machine: MachineClient, stream: Duplex, options: GdbOptions) {
    this.#machine = machine;
    this.#stream = stream;
    this.#options = options;
    this.#breakpoints = new Breakpoints(machine);
  }

  /** Serves gdb until it leaves; the machine goes on then, without breakpoints. Never throws. */
  async run(): Promise<void> {
    const stream = this.#stream;
    stream.on('error', () => stream.destroy());
    try {
      await this.#machine.attachDebugger();
    } catch (error) {
      await this.#refuse(toNemuError(error));
      return;
    }
    const unlisten = this.#machine.onEvent((event) => this.#happened(event));
    try {
      if (this.#machine.state === 'running') await this.#machine.pause();
      await Promise.race([this.#take((incoming) => this.#incoming(incoming)), this.#ended.promise]);
    } catch {
      // A connection that broke, or a peer that speaks something else.
    } finally {
      unlisten();
      // A machine that has gone meanwhile has nothing to let go of.
      if (!this.#detached) await this.#machine.detachDebugger().catch(() => {});
      stream.end();
    }
  }

  /** One packet at a time: a peer that sends faster waits. */
  async #take(action: (incoming: Incoming) => Promise<void>): Promise<void> {
    for await (const bytes of this.#stream.iterator({ destroyOnReturn: false })) {
      for (const incoming of this.#decoder.push(bytes as Buffer)) {
        await action(incoming);
        if (this.#over) return;
      }
    }
  }

  /** The first question is answered with the reason, which gdb shows. */
  async #refuse(error: NemuError): Promise<void> {
    try {
      await this.#take(async ({ type }) => {
        if (type !== 'packet') return;
        this.#write('+');
        this.#send(errorText(error));
        this.#over = true;
      });
    } catch {
      // It has gone.
    }
    this.#stream.end();
  }

  #write(bytes: string | Uint8Array): void {
    if (this.#stream.writable) this.#stream.write(bytes);
  }

  #send(body: string | Uint8Array): void {
    this.#last = encodePacket(body);
    this.#write(this.#last);
  }

  async #incoming(incoming: Incoming): Promise<void> {
    switch (incoming.type) {
      case 'interrupt':
        // The stop is told when it has come.
        if (this.#running) await this.#machine.pause().catch(() => {});
        return;
      case 'ack':
        this.#repeats = 0;
        return;
      case 'nack':
        if (this.#last && this.#acks) this.#write(this.#last);
        if (++this.#repeats > MAX_REPEATS) this.#over = true;
        return;
      case 'damaged':
        if (this.#acks) this.#write('-');
        return;
      case 'packet':
        if (this.#acks) this.#write('+');
        await this.#answer(incoming.body);
    }
  }

  async #answer(body: Buffer): Promise<void> {
    let reply: string | Uint8Array | undefined;
    try {
      reply = await this.#command(body);
    } catch (error) {
      reply = errorText(toNemuError(error));
    }
    if (reply !== undefined) this.#send(reply);
  }

  // --- what happens in the machine ------------------------------------------------------------------------

  #happened(event: MachineEvent): void {
    if (event.type === 'debug') this.#stop = event;
    if (event.type !== 'state') return;
    this.#forget();
    if (event.state === 'running') this.#stop = undefined;
    if (!this.#running || event.state === 'running') return;
    this.#running = false;
    const stop = this.#stop;
    if (stop) this.#vcpu = stop.vcpu;
    this.#next = undefined;
    this.#send(this.#stopReply(stop ? SIGTRAP : SIGINT));
    if (event.state !== 'paused') this.#ended.resolve();
  }

  #stopReply(signal: string): string {
    const { state } = this.#machine;
    if (state === 'ended' || state === 'closed') return 'W00';
    const stop = this.#stop;
    let reason = '';
    if (stop?.reason === 'write') reason = `watch:${stop.address?.slice(2)};`;
    else if (stop?.reason === 'access') reason = `awatch:${stop.address?.slice(2)};`;
    else if (stop?.reason === 'breakpoint' && this.#saysKind.swbreak) reason = 'swbreak:;';
    else if (stop?.reason === 'execute' && this.#saysKind.hwbreak) reason = 'hwbreak:;';
    return `T${signal}thread:${(this.#vcpu + 1).toString(16)};${reason}`;
  }

  #forget(): void {
    this.#registers.clear();
    this.#memory = undefined;
    this.#reports = undefined;
  }

  // --- commands -------------------------------------------------------------------------------------------

  /** @returns the answer: empty for what there is not, undefined for what has none yet. */
  async #command(body: Buffer): Promise<string | Uint8Array | undefined> {
    const text = body.toString('latin1');
    const rest = text.slice(1);
    switch (text[0]) {
      case '?':
        return this.#stopReply(SIGTRAP);
      case 'g':
        return encodeAll(await this.#registersOf(this.#vcpu));
      case 'G':
        return this.#writeAll(rest);
      case 'p':
        return this.#readRegister(rest);
      case 'P':
        return this.#writeRegister(rest);
      case 'm':
        return this.#readMemory(rest);
      case 'M':
        return this.#writeMemory(rest, Buffer.from(rest.slice(rest.indexOf(':') + 1), 'hex'));
      case 'X':
        return this.#writeMemory(rest, body.subarray(body.indexOf(':') + 1));
      case 'H':
        return this.#selectThread(rest);
      case 'T':
        return (await this.#vcpus()).includes(parseHex(rest) - 1) ? 'OK' : EINVAL;
      case 'Z':
      case 'z':
        return this.#breakpoint(text[0] === 'Z', rest);
      case 'c':
      case 's':
      case 'C':
      case 'S':
        return this.#goOn(text[0].toLowerCase() === 's', rest);
      case 'v':
        return this.#verbose(text);
      case 'q':
      case 'Q':
        return this.#query(text);
      case 'D':
        await this.#detach();
        return 'OK';
      case 'k':
        // Programs around gdb send it when they are closed: the guest goes on, as with D.
        await this.#detach();
        return undefined;
      default:
        return '';
    }
  }

  async #vcpus(): Promise<number[]> {
    return (await this.#machine.plugged()).cpus.present.map(({ index }) => index);
  }

  #registersOf(vcpu: number): Promise<RegisterValues> {
    const known = this.#registers.get(vcpu) ?? this.#machine.readRegisters(vcpu);
    this.#registers.set(vcpu, known);
    known.catch(() => this.#registers.delete(vcpu));
    return known;
  }

  async #writeRegisters(values: Record<string, string>): Promise<string> {
    this.#forget();
    await this.#machine.writeRegisters(this.#vcpu, values);
    return 'OK';
  }

  async #writeAll(digits: string): Promise<string> {
    const changed = decodeAll(digits, await this.#registersOf(this.#vcpu));
    if (!changed) return EINVAL;
    return Object.keys(changed).length === 0 ? 'OK' : this.#writeRegisters(changed);
  }

  async #readRegister(text: string): Promise<string> {
    const register = /^[0-9a-f]{1,4}$/i.test(text) ? REGISTERS[parseHex(text)] : undefined;
    return register ? encodeRegister(register, await this.#registersOf(this.#vcpu)) : EINVAL;
  }

  async #writeRegister(text: string): Promise<string> {
    const [, number, digits] = /^([0-9a-f]{1,4})=([0-9a-f]{1,32})$/i.exec(text) ?? [];
    const register = number === undefined ? undefined : REGISTERS[parseHex(number)];
    const value = register && decodeRegister(register, digits);
    return value === undefined ? EINVAL : this.#writeRegisters({ [register?.name ?? '']: value });
  }

  #space(): Promise<DebuggerMemory> {
    this.#memory ??= (async () =>
      new DebuggerMemory(this.#machine, this.#isPhysical ? undefined : await this.#registersOf(this.#vcpu)))();
    return this.#memory;
  }

  async #readMemory(text: string): Promise<string> {
    const [, address, length] = MEMORY.exec(text) ?? [];
    if (address === undefined) return EINVAL;
    if (parseHex(length) === 0) return '';
    try {
      const memory = await this.#space();
      return (await memory.read(BigInt(`0x${address}`), Math.min(parseHex(length), MAX_READ))).toString('hex');
    } catch (error) {
      if (error instanceof NemuError && error.code === 'ADDRESS') return EFAULT;
      throw error;
    }
  }

  async #writeMemory(text: string, bytes: Uint8Array): Promise<string> {
    const [, address, length] = WRITE.exec(text) ?? [];
    if (address === undefined || parseHex(length) !== bytes.length) return EINVAL;
    if (bytes.length === 0) return 'OK';
    try {
      await (await this.#space()).write(BigInt(`0x${address}`), bytes);
      return 'OK';
    } catch (error) {
      if (error instanceof NemuError && error.code === 'ADDRESS') return EFAULT;
      throw error;
    } finally {
      // It may have been a page table.
      this.#memory = undefined;
    }
  }

  async #selectThread(text: string): Promise<string> {
    const [, kind, id] = /^([gc])(-1|[0-9a-f]{1,4})$/i.exec(text) ?? [];
    if (kind === undefined) return EINVAL;
    const isAny = id === '-1' || parseHex(id) === 0;
    const vcpu = parseHex(id) - 1;
    if (!isAny && !(await this.#vcpus()).includes(vcpu)) return EINVAL;
    if (kind === 'c') this.#next = isAny ? undefined : vcpu;
    else if (!isAny && vcpu !== this.#vcpu) {
      this.#vcpu = vcpu;
      this.#memory = undefined;
    }
    return 'OK';
  }

  async #breakpoint(isNew: boolean, text: string): Promise<string> {
    const [, type, address, length] = BREAKPOINT.exec(text) ?? [];
    if (type === undefined) return EINVAL;
    const at = BigInt(`0x${address}`);
    if (!isNew) await this.#breakpoints.remove(Number(type), at, parseHex(length));
    else {
      await this.#breakpoints.insert(Number(type), at, parseHex(length), async (each) =>
        (await this.#space()).physical(each),
      );
    }
    return 'OK';
  }

  // --- going on -------------------------------------------------------------------------------------------

  /** `c` and `s`, with an address to go on at, and `C` and `S` with a signal, which a processor has no use for. */
  async #goOn(steps: boolean, text: string): Promise<string | undefined> {
    const [, address] = /^(?:[0-9a-f]{2};)?([0-9a-f]{1,16})?$/i.exec(text) ?? [];
    const vcpu = this.#next ?? this.#vcpu;
    if (address !== undefined) await this.#machine.writeRegisters(vcpu, { rip: `0x${address.toLowerCase()}` });
    return this.#start(steps ? [vcpu] : [], undefined);
  }

  /** `vCont;s:1;c`: for each vCPU the first action that names it, or all; what none names stands still. */
  async #continue(text: string): Promise<string | undefined> {
    const actions = text.split(';').map((each) => ACTION.exec(each));
    if (actions.length > 512 || actions.some((each) => !each)) return EINVAL;
    const present = await this.#vcpus();
    const step: number[] = [];
    const go: number[] = [];
    for (const vcpu of present) {
      const action = actions.find((each) => {
        const id = each?.[3];
        return id === undefined || id === '-1' || parseHex(id) === 0 || parseHex(id) - 1 === vcpu;
      })?.[1];
      if (action === undefined || action === 't') continue;
      go.push(vcpu);
      if (action.toLowerCase() === 's') step.push(vcpu);
    }
    if (go.length === 0) return EINVAL;
    return this.#start(step, go.length === present.length ? undefined : go);
  }

  async #start(step: number[], vcpus: number[] | undefined): Promise<undefined> {
    const { state } = this.#machine;
    if (state === 'ended' || state === 'closed') {
      this.#send('W00');
      this.#over = true;
      return;
    }
    // Somebody else has let it go on.
    if (state === 'running') await this.#machine.pause();
    this.#forget();
    this.#running = true;
    this.#stop = undefined;
    try {
      await this.#machine.debugRun({ step, ...(vcpus && { vcpus }) });
    } catch (error) {
      this.#running = false;
      throw error;
    }
  }

  async #detach(): Promise<void> {
    this.#over = true;
    this.#detached = true;
    await this.#machine.detachDebugger();
    const { state } = this.#machine;
    if (state === 'created') await this.#machine.start();
    else if (state === 'paused') await this.#machine.resume();
  }

  // --- words ----------------------------------------------------------------------------------------------

  async #verbose(text: string): Promise<string | undefined> {
    if (text === 'vCont?') return 'vCont;c;C;s;S;t';
    if (text.startsWith('vCont;')) return this.#continue(text.slice('vCont;'.length));
    if (!text.startsWith('vKill')) return '';
    await this.#detach();
    return 'OK';
  }

  async #query(text: string): Promise<string | Uint8Array | undefined> {
    const [, word] = /^([^:,;]*)/.exec(text) ?? [];
    switch (word) {
      case 'qSupported':
        this.#saysKind = { swbreak: text.includes('swbreak+'), hwbreak: text.includes('hwbreak+') };
        return `PacketSize=${PACKET_SIZE.toString(16)};QStartNoAckMode+;qXfer:features:read+;vContSupported+;swbreak+;hwbreak+`;
      case 'QStartNoAckMode':
        this.#acks = false;
        return 'OK';
      case 'qAttached':
        // gdb then detaches when it is left, and does not kill.
        return '1';
      case 'qC':
        return `QC${(this.#vcpu + 1).toString(16)}`;
      case 'qfThreadInfo':
        return `m${(await this.#vcpus()).map((vcpu) => (vcpu + 1).toString(16)).join(',')}`;
      case 'qsThreadInfo':
        return 'l';
      case 'qThreadExtraInfo':
        return this.#threadInfo(text.slice('qThreadExtraInfo,'.length));
      case 'qXfer':
        return this.#transfer(text);
      case 'qRcmd':
        return this.#monitor(text.slice('qRcmd,'.length));
      case 'qqemu.Supported':
        return 'PhyMemMode';
      case 'qqemu.PhyMemMode':
        return this.#isPhysical ? '1' : '0';
      case 'Qqemu.PhyMemMode':
        if (!/:[01]$/.test(text)) return EINVAL;
        this.#isPhysical = text.endsWith('1');
        this.#memory = undefined;
        return 'OK';
      default:
        return '';
    }
  }

  async #threadInfo(id: string): Promise<string> {
    this.#reports ??= this.#machine.inspect();
    const vcpu = parseHex(id) - 1;
    const report = (await this.#reports).find(({ index }) => index === vcpu);
    return report ? textHex(`CPU#${vcpu} [${report.activity ?? report.state}]`) : EINVAL;
  }

  #transfer(text: string): string {
    const [, annex, offset, length] = /^qXfer:features:read:([^:]*):([0-9a-f]{1,8}),([0-9a-f]{1,8})$/i.exec(text) ?? [];
    if (annex === undefined) return '';
    if (annex !== 'target.xml') return 'E00';
    const from = parseHex(offset);
    // What is escaped takes two bytes.
    const end = from + Math.min(parseHex(length), PACKET_SIZE / 2);
    return `${end < TARGET_XML.length ? 'm' : 'l'}${TARGET_XML.slice(from, end)}`;
  }

  async #monitor(digits: string): Promise<string> {
    const { monitor } = this.#options;
    if (!monitor) return '';
    if (!/^([0-9a-f]{2})*$/i.test(digits)) return EINVAL;
    const output = Buffer.from(await monitor(Buffer.from(digits, 'hex').toString(), this.#vcpu));
    for (let at = 0; at < output.length; at += OUTPUT_PIECE) {
      this.#send(`O${output.subarray(at, at + OUTPUT_PIECE).toString('hex')}`);
    }
    return 'OK';
  }
}
