import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { possibleCpus } from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import type { EndState, MachineEvent, MachineState } from '../client/machine_client.ts';
import { KVM_EXIT, kvm_run } from '../ffi/kvm/common.ts';
import { SCHED_FIFO, SCHED_OTHER, schedSetscheduler, setThreadName } from '../ffi/libc.ts';
import { type Board, createBoard } from './board.ts';
import { CoalescedRing } from './coalesced.ts';
import { type DirtySlot, takeDirtyPages } from './dirty_pages.ts';
import { discardPieces } from './discard.ts';
import { describeFatalExit } from './exit.ts';
import { FaultEvents } from './fault_events.ts';
import { GuestDebug } from './guest_debug.ts';
import { LiveDevices } from './hotplug/live_devices.ts';
import { MachineClock } from './machine_clock.ts';
import { GuestMemoryView } from './memory.ts';
import { PostMortem } from './post_mortem.ts';
import { PostServer } from './post_server.ts';
import { Processors } from './processors.ts';
import { Reactor } from './reactor.ts';
import { reportCounters, reportVcpus } from './reports.ts';
import { searchRam } from './search_ram.ts';
import { GATHER_TICK_MS, SerialCoalescing } from './serial_coalescing.ts';
import { H, type SharedBlock, viewShared } from './shared.ts';
import type {
  CallName,
  ErrorData,
  FromMachine,
  MachineCalls,
  MachineThreadData,
  ToMachine,
} from './thread_messages.ts';

/**
 * Looks at the mailbox this many times after serving something before it sleeps: a driver's next access
 * usually follows at once, and a wake-up costs 18–67 µs.
 */
const SPIN_AFTER_WORK = 400;
/** Counters go to the post-mortem file at most this often, when the thread wakes up anyway. */
const POST_MORTEM_INTERVAL_MS = 1000;
/** Where a processor starts after INIT. */
const RESET_RIP = '0xfff0';

const notRam = (address: number, length: number) =>
  new NemuError(
    'ADDRESS',
    `0x${address.toString(16)}–0x${(address + length - 1).toString(16)} is not RAM of this machine.`,
  );

export function errorData(error: unknown): ErrorData {
  if (error instanceof NemuError) return { ...error.toJSON(), ...(error.stack && { stack: error.stack }) };
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  return { code: 'ENGINE', message, ...(stack && { stack }) };
}

/**
 * The thread that owns a machine: devices, memory map, interrupts. It runs one blocking loop and never
 * returns to libuv until the machine is closed.
 */
export function runMachine(data: MachineThreadData, port: MessagePort): void {
  const send = (message: FromMachine) => port.postMessage(message);
  let machine: MachineThread;
  try {
    setThreadName('machine');
    if (data.oneProcessor) schedSetscheduler(0, SCHED_FIFO, 1);
    machine = new MachineThread(data, port, send);
  } catch (error) {
    send({ type: 'failed', error: errorData(error) });
    return;
  }
  send({ type: 'ready' });
  machine.run();
  if (data.oneProcessor) schedSetscheduler(0, SCHED_OTHER, 0);
}

class MachineThread {
  readonly #data: MachineThreadData;
  readonly #port: MessagePort;
  readonly #send: (message: FromMachine) => void;
  readonly #block: SharedBlock;
  readonly #reactor = new Reactor();
  readonly #clock: MachineClock;
  readonly #processors: Processors;
  readonly #board: Board;
  readonly #live: LiveDevices;
  readonly #posts: PostServer;
  readonly #coalesced: CoalescedRing;
  readonly #serialCoalescing: SerialCoalescing;
  readonly #postMortem: PostMortem | undefined;
  readonly #debug: GuestDebug;
  readonly #faults = new FaultEvents((event) => this.#event(event));
  #state: MachineState = 'created';
  #end: EndState | undefined;
  #quit = false;
  #wakeups = 0;
  #postMortemAt = 0;
  /** A reset that the guest asked for in the middle of an exit: done between two exits. */
  #resetCause: string | undefined;

  constructor(data: MachineThreadData, port: MessagePort, send: (message: FromMachine) => void) {
    this.#data = data;
    this.#port = port;
    this.#send = send;
    const { description } = data;
    this.#block = viewShared(data.shared, possibleCpus(description.cpus));
    this.#postMortem = data.postMortem ? PostMortem.open(data.postMortem) : undefined;
    this.#reactor.addEventfd(data.wakeFd, () => {
      this.#wakeups++;
    });
    this.#clock = new MachineClock(this.#block, this.#reactor);
    const memory = new GuestMemoryView(data.memory);
    this.#processors = new Processors(description, data.memory, this.#block);
    this.#serialCoalescing = new SerialCoalescing(
      (port, on) => this.#processors.vm.coalescePort(port, 1, on),
      () => this.#coalesced.drain(),
    );
    const { ranges } = data.memory;
    const { vm, physicalBits } = this.#processors;
    this.#live = new LiveDevices({
      ...{ description, handle: data.memory, memory, processors: this.#processors, clock: this.#clock },
      nvdimms: data.nvdimms,
      pmems: data.pmems,
      poller: this.#reactor,
      hold: () => this.#posts.hold(),
      fault: (device, text) => this.#faults.say(device, text),
      flushFailed: (id, errno) => this.#diskFailed(id, 'flush', errno, 0, 'stop'),
      raiseGpe: (number) => this.#board.raiseGpe(number),
      knowsGpe: (number) => this.#board.knowsGpe(number),
      hasStarted: () => this.#state !== 'created',
      changed: (request) => this.#event({ type: 'request', request }),
      event: (event) => this.#event(event),
      release: (id, device) => send({ type: 'release', id, device }),
    });
    this.#board = createBoard({
      description,
      memory,
      ranges,
      cpus: this.#live.cpus,
      dimms: this.#live.dimms,
      live: this.#live.pci,
      nvdimms: this.#live.nvdimms,
      pmems: data.pmems,
      virtioMem: this.#live.virtioMem,
      clock: this.#clock,
      block: this.#block,
      vm,
      reactor: this.#reactor,
      configPages: data.configPages,
      physicalBits,
      fault: (device, text) => this.#faults.say(device, text),
      diskFailed: (disk, operation, errno, offset, action) => this.#diskFailed(disk, operation, errno, offset, action),
      serial: data.serial,
      coalescing: this.#serialCoalescing,
      bell: (name) => send({ type: 'serial', name }),
      consoleTap: (bytes) => this.#postMortem?.appendConsole(bytes),
      event: (event) => this.#event(event),
      powerOff: () => this.#finish({ reason: 'poweroff', detail: 'The guest powered off.' }),
      requestReset: (cause) => {
        this.#resetCause ??= cause;
      },
      panic: () => this.#panicked(),
      silencePit: (silent) => this.#processors.silencePit(silent),
      watchdog: (action) => this.#watchdog(action),
      discard: (gpa, length) => discardPieces(data.memory, gpa, length, this.#live.memoryParts()),
      debugExit: (exitCode) =>
        this.#finish({ reason: 'debug-exit', detail: `The guest wrote to isa-debug-exit.`, exitCode }),
    });
    this.#debug = new GuestDebug({
      ...{ processors: this.#processors, memory, breakInstruction: data.breakInstruction },
    });
    this.#coalesced = new CoalescedRing(this.#processors, this.#board.pio);
    this.#posts = new PostServer(this.#block, this.#board.pio, this.#board.mmio, {
      before: () => this.#coalesced.drain(),
      broke: (vcpu) => this.#debug.wroteToPort(vcpu) && this.#requestDebugStop(),
      other: (vcpu) => this.#otherExit(vcpu),
      failed: (vcpu, errno) => this.#runFailed(vcpu, errno),
    });
    this.#processors.captureReset();
    this.#processors.enterBoot(this.#board.boot());
    this.#processors.publish();
  }

  run(): void {
    const { words } = this.#block;
    const spinAfterWork = this.#data.oneProcessor ? 0 : SPIN_AFTER_WORK;
    let spin = 0;
    while (!this.#quit && !Atomics.load(words, H.STOP)) {
      let worked = this.#posts.serve();
      if (Atomics.exchange(words, H.RING, 0)) {
        this.#coalesced.drain();
        worked = true;
      }
      if (Atomics.exchange(words, H.CPUS, 0)) this.#live.cpus.poll();
      if (Atomics.exchange(words, H.CONTROL, 0)) {
        this.#board.pollSerial();
        this.#takeCalls();
        worked = true;
      }
      if (this.#resetCause !== undefined) this.#guestReset();
      if (this.#debug.stops && this.#state === 'running') this.#pauseForDebugger();
      spin = worked ? spinAfterWork : spin - 1;
      if (spin > 0) continue;
      Atomics.store(words, H.SLEEPING, 1);
      if (
        this.#posts.pending ||
        Atomics.load(words, H.RING) ||
        Atomics.load(words, H.CONTROL) ||
        Atomics.load(words, H.CPUS)
      ) {
        Atomics.store(words, H.SLEEPING, 0);
        continue;
      }
      this.#recordCounters();
      this.#reactor.wait(this.#serialCoalescing.active ? GATHER_TICK_MS : -1);
      Atomics.store(words, H.SLEEPING, 0);
      if (this.#serialCoalescing.active) this.#serialCoalescing.tick();
    }
    this.#close();
  }

  #takeCalls(): void {
    for (let message = receiveMessageOnPort(this.#port); message; message = receiveMessageOnPort(this.#port)) {
      const { id, call, parameter } = message.message as ToMachine;
      if (this.#data.faultAt === `hang ${call}`) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
      if (this.#data.faultAt === call) throw new Error(`Fault injected at ${call}.`);
      try {
        this.#send({ type: 'reply', id, result: this.#call(call, parameter) });
      } catch (error) {
        this.#send({ type: 'error', id, error: errorData(error) });
      }
    }
  }

  #call(call: CallName, parameter: unknown): unknown {
    switch (call) {
      case 'start':
        this.#require(['created'], 'start');
        this.#clock.resume();
        this.#setState('running');
        return this.#processors.resume();
      case 'pause':
        if (this.#state === 'paused') return undefined;
        this.#require(['running'], 'pause');
        return this.#pauseForDebugger();
      case 'resume':
        if (this.#state === 'running') return undefined;
        this.#require(['paused'], 'resume');
        this.#debug.settle();
        return this.#resumeProcessors();
      case 'reset':
        this.#require(['running', 'paused'], 'reset');
        return this.#reset('the user');
      case 'powerButton':
        this.#require(['running', 'paused'], 'press the power button of');
        return this.#board.powerButton();
      case 'nmi':
        this.#require(['running'], 'send an NMI to');
        return this.#whileStopped(() => this.#processors.nmi());
      case 'counters':
        return this.#counters();
      case 'inspect':
        return this.#whileStopped(() =>
          reportVcpus(this.#block, this.#processors, this.#board.local, this.#board.memory),
        );
      case 'interrupts':
        return this.#whileStopped(() => this.#processors.interrupts());
      case 'devices':
        return this.#board.devices();
      case 'vmcoreinfo': {
        const { note } = this.#board.vmcoreinfo;
        return note && this.#board.memory.slice(note.gpa, note.size)?.slice();
      }
      case 'readMemory': {
        const { address, length } = parameter as { address: number; length: number };
        const bytes = this.#board.memory.slice(address, length);
        if (!bytes) throw notRam(address, length);
        return this.#debug.readable(address, bytes.slice());
      }
      case 'writeMemory': {
        const { address, bytes } = parameter as MachineCalls['writeMemory']['parameter'];
        if (this.#whileStopped(() => this.#debug.writeMemory(address, bytes))) return undefined;
        throw notRam(address, bytes.length);
      }
      case 'readRegisters': {
        const { vcpu } = parameter as MachineCalls['readRegisters']['parameter'];
        return this.#whileStopped(() => this.#debug.readRegisters(vcpu));
      }
      case 'writeRegisters': {
        const { vcpu, values } = parameter as MachineCalls['writeRegisters']['parameter'];
        this.#require(['created', 'running', 'paused'], 'write registers of');
        return this.#whileStopped(() => this.#debug.writeRegisters(vcpu, values));
      }
      case 'attachDebugger':
        return this.#debug.attach(this.#state === 'running');
      case 'detachDebugger':
        return this.#detachDebugger();
      case 'setBreakpoints': {
        const { breakpoints } = parameter as MachineCalls['setBreakpoints']['parameter'];
        this.#debug.requireAttached();
        return this.#whileStopped(() => this.#debug.setBreakpoints(breakpoints));
      }
      case 'debugRun':
        return this.#debugRun(parameter as MachineCalls['debugRun']['parameter']);
      case 'disks':
        return this.#board.disks.report();
      case 'throttle': {
        const { disk, limits } = parameter as MachineCalls['throttle']['parameter'];
        return this.#board.disks.throttle(disk, limits);
      }
      case 'changeDisk': {
        const { disk, change } = parameter as MachineCalls['changeDisk']['parameter'];
        return this.#board.disks.change(disk, change);
      }
      case 'nets':
        return this.#board.nets.report();
      case 'changeNet': {
        const { net, change } = parameter as MachineCalls['changeNet']['parameter'];
        return this.#board.nets.change(net, change);
      }
      case 'resizeConsole': {
        const { name, rows, columns } = parameter as MachineCalls['resizeConsole']['parameter'];
        return this.#board.resizeConsole(name, rows, columns);
      }
      case 'balloon':
        return this.#board.balloon((parameter as MachineCalls['balloon']['parameter']).target);
      case 'searchMemory': {
        const { address, length, bytes, most } = parameter as MachineCalls['searchMemory']['parameter'];
        return searchRam(this.#board.memory, address, length, bytes, most);
      }
      case 'dirtyPages':
        return this.#dirtyPages((parameter as MachineCalls['dirtyPages']['parameter']).on);
      case 'plug': {
        const { kind } = (parameter as MachineCalls['plug']['parameter']).request;
        // DIMMs of the start come before it.
        this.#require([...(kind === 'memory' ? (['created'] as const) : []), 'running', 'paused'], 'plug into');
        return this.#live.call(call, parameter);
      }
      case 'unplug':
        this.#require(['running', 'paused'], 'unplug from');
        return this.#live.call(call, parameter);
      case 'resizeMemory':
        this.#require(['created', 'running', 'paused'], 'resize memory of');
        return this.#live.call(call, parameter);
      case 'prepared':
      case 'released':
      case 'requests':
      case 'plugged':
        return this.#live.call(call, parameter);
      case 'quit':
        if (!this.#end) this.#finish({ reason: 'quit', detail: 'The machine was closed.' });
        this.#quit = true;
        return undefined;
    }
  }

  #dirtyPages(on: boolean): DirtySlot[] {
    const { vm } = this.#processors;
    if (on) {
      vm.logDirtyPages(true);
      return [];
    }
    try {
      return takeDirtyPages(vm);
    } finally {
      vm.logDirtyPages(false);
    }
  }

  #watchdog(action: 'reset' | 'poweroff' | 'pause' | 'nmi' | 'none'): void {
    this.#event({ type: 'watchdog', action });
    if (action === 'reset') this.#resetCause ??= 'the watchdog';
    else if (action === 'poweroff')
      this.#finish({ reason: 'poweroff', detail: 'The watchdog powered the machine off.' });
    else if (action === 'nmi') this.#whileStopped(() => this.#processors.nmi());
    else if (action === 'pause') this.#pauseFromWithin();
  }

  #require(states: MachineState[], verb: string): void {
    if (states.includes(this.#state)) return;
    throw new NemuError('STATE', `Cannot ${verb} a machine that is ${this.#state}.`);
  }

  #counters() {
    return reportCounters(this.#block, this.#processors, this.#board, this.#coalesced, this.#wakeups);
  }

  #recordCounters(): void {
    if (!this.#postMortem) return;
    const now = performance.now();
    if (now - this.#postMortemAt < POST_MORTEM_INTERVAL_MS) return;
    this.#postMortemAt = now;
    this.#postMortem.setCounters(this.#counters());
  }

  #event(event: MachineEvent): void {
    this.#send({ type: 'event', event });
  }

  #setState(state: MachineState): undefined {
    this.#state = state;
    this.#send({ type: 'state', state, ...(this.#end && { end: this.#end }) });
  }

  /** Brings every vCPU out of the guest, serving what they still post. */
  #stopProcessors(): void {
    this.#processors.pause(() => this.#serveLeaving());
    this.#coalesced.drain();
    this.#clock.pause();
  }

  /** @param held vCPUs that stay out of the guest all the same. */
  #resumeProcessors(held: readonly number[] = []): undefined {
    this.#board.resumed();
    this.#clock.resume();
    this.#setState('running');
    this.#processors.hold(held);
    this.#processors.resume();
  }

  /** Says why a debugger stops the machine, where one does, before it says that the machine stands still. */
  #pauseForDebugger(): undefined {
    this.#stopProcessors();
    const stop = this.#debug.settle();
    if (stop) this.#event({ type: 'debug', ...stop });
    // What was served meanwhile may have ended the machine.
    if (this.#state === 'running') this.#setState('paused');
  }

  /** The vCPUs leave the guest from now on; the machine stops between two exits. */
  #requestDebugStop(): true {
    this.#processors.requestPause();
    return true;
  }

  #debugRun(how: MachineCalls['debugRun']['parameter']): undefined {
    this.#debug.requireAttached();
    this.#require(['created', 'paused'], 'run');
    this.#debug.settle();
    const held = this.#debug.prepareRun(how);
    this.#resumeProcessors(held);
  }

  #detachDebugger(): undefined {
    const runs = this.#whileStopped(() => this.#debug.detach());
    if (this.#state === 'paused' && runs) this.#resumeProcessors();
    else this.#processors.hold([]);
  }

  /** A vCPU leaves the guest only when its exit has completed, also one that waits for a flush. */
  #serveLeaving(): void {
    this.#posts.serve();
    this.#live.nvdimms.drain();
  }

  #whileStopped<T>(action: () => T): T {
    if (this.#state !== 'running') return action();
    this.#processors.pause(() => this.#serveLeaving());
    try {
      return action();
    } finally {
      // What was served during the pause may have ended the machine.
      if ((this.#state as MachineState) === 'running' && !this.#debug.stops) this.#processors.resume();
    }
  }

  #guestReset(): void {
    const cause = this.#resetCause as string;
    this.#resetCause = undefined;
    if (this.#state !== 'running') return;
    if (this.#data.description.onReset === 'stop') {
      this.#finish({ reason: 'reset', detail: `The guest reset the machine through ${cause}.` });
    } else {
      this.#reset(cause);
    }
  }

  #reset(cause: string): undefined {
    const running = this.#state === 'running';
    this.#stopProcessors();
    this.#debug.reset();
    this.#live.guestGone();
    this.#board.reset();
    this.#live.reset();
    this.#processors.reset();
    this.#processors.enterBoot(this.#board.boot());
    this.#event({ type: 'reset', cause });
    if (running) this.#resumeProcessors();
  }

  #panicked(): void {
    const { onPanic } = this.#data.description;
    this.#event({ type: 'panic', detail: 'The guest kernel reported a panic through pvpanic.' });
    if (onPanic === 'stop') this.#finish({ reason: 'panic', detail: 'The guest kernel panicked.' });
    else if (onPanic === 'pause' && this.#state === 'running') {
      this.#processors.requestPause();
      this.#clock.pause();
      this.#setState('paused');
    }
  }

  #diskFailed(
    disk: string,
    operation: string,
    errno: string,
    offset: number,
    action: 'ignore' | 'report' | 'stop',
  ): void {
    this.#event({ type: 'disk-error', disk, operation, errno, offset, action });
    if (action === 'stop') this.#pauseFromWithin();
  }

  /** A device wants the machine to stand still; `resume` lets it go on. */
  #pauseFromWithin(): void {
    if (this.#state !== 'running') return;
    this.#processors.requestPause();
    this.#clock.pause();
    this.#setState('paused');
  }

  /** Ends the machine: vCPUs stay out of the guest, everything can still be looked at until `quit`. */
  #finish(end: EndState): void {
    if (this.#end) return;
    this.#end = end;
    this.#processors.requestPause();
    this.#clock.pause();
    this.#setState('ended');
    this.#event({ type: 'ended', end });
    this.#postMortem?.setCounters(this.#counters());
  }

  /** Called while the vCPU waits for the answer. */
  #otherExit(vcpu: number): void {
    if (this.#processors.run(vcpu).getUint32(kvm_run.offsets.exit_reason, true) !== KVM_EXIT.DEBUG) {
      this.#fatalExit(vcpu);
      return;
    }
    this.#debug.exited(vcpu);
    if (this.#debug.stops) this.#requestDebugStop();
  }

  /** An exit that no device answers. */
  #fatalExit(vcpu: number): void {
    const run = this.#processors.run(vcpu);
    const detail = describeFatalExit(run);
    const tripleFault = detail === 'the guest triple-faulted';
    if (tripleFault) {
      this.#event({ type: 'triple-fault', vcpu });
      if (this.#data.description.onTripleFault === 'reset') {
        this.#processors.requestPause();
        this.#resetCause ??= 'a triple fault';
        return;
      }
    } else {
      this.#event({ type: 'internal-error', vcpu, detail });
    }
    this.#stopFor(tripleFault ? 'triple-fault' : 'internal-error', vcpu, detail);
  }

  #runFailed(vcpu: number, errnoName: string): void {
    const detail = `KVM_RUN failed with ${errnoName}`;
    this.#event({ type: 'internal-error', vcpu, detail });
    this.#stopFor('internal-error', vcpu, detail);
  }

  #stopFor(reason: 'triple-fault' | 'internal-error', vcpu: number, detail: string): void {
    const registers = this.#processors.registersOf(vcpu);
    // AMD processors leave an undefined state behind, and KVM puts the vCPU back to INIT before anyone can look.
    const lost = reason === 'triple-fault' && registers.rip === RESET_RIP;
    const where = lost ? 'its registers were reset before they could be read' : `rip ${registers.rip}`;
    this.#finish({ reason, vcpu, registers, detail: `vCPU ${vcpu}: ${detail}, ${where}.` });
  }

  #close(): void {
    this.#processors.stop(() => this.#posts.serve());
    this.#board.close();
    this.#live.nvdimms.close();
    this.#debug.close();
    this.#processors.close();
    this.#reactor.close();
    this.#state = 'closed';
    this.#send({ type: 'state', state: 'closed', ...(this.#end && { end: this.#end }) });
  }
}
