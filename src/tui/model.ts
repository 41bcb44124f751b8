/** What the workstation knows of a machine: the last of every report, and how the numbers went over time. */
import { type ActionsChange, actionsOf } from '../client/actions.ts';
import type { NotedEvent } from '../client/event_history.ts';
import type { GuestChannel, GuestPhase } from '../client/guest_session.ts';
import { isSettled, type LiveRequest, type PluggedReport } from '../client/live.ts';
import type {
  BalloonReport,
  CountersReport,
  DevicesReport,
  DiskReport,
  MachineEvent,
  MemoryRangeReport,
  NetReport,
  VcpuReport,
} from '../client/machine_client.ts';
import { formatSize } from '../client/sizes.ts';
import type { Vm } from '../repl/vm.ts';
import { hostClock, type StationClock } from './clock.ts';
import { DirtyWatch } from './dirty_watch.ts';
import { visible } from './style.ts';

const POLL_MS = 1000;
/** A guest that does nothing, before somebody who does nothing, is asked less often. */
const IDLE_POLL_MS = 5000;
const IDLE_AFTER_MS = 10_000;
/** Exits a second, and share of a processor, below which a guest does nothing. */
const IDLE_EXITS = 100;
const IDLE_LOAD = 0.05;
/** What changes seldom, or costs more, is asked for so often. */
const SELDOM_MS = 5000;
/** What is asked again at once, by a user or for a device that has come, tells nothing of a second. */
const LEAST_SECONDS = 0.5;
/** Values kept of each series: what the widest plot can show in braille. */
const HISTORY = 600;
export const MAX_EVENTS = 5000;

export const EVENT_KINDS = ['machine', 'boot', 'hotplug', 'guest', 'device', 'action'] as const;
export type EventKind = (typeof EVENT_KINDS)[number];
export type EventLevel = 'info' | 'good' | 'warn' | 'bad';

export interface TimelineEvent {
  readonly at: Date;
  readonly kind: EventKind;
  readonly level: EventLevel;
  readonly text: string;
}

/** How one vCPU went: a value a second, oldest first. */
export interface VcpuHistory {
  /** Share of one host processor, 0 to 1. */
  readonly utilisation: readonly number[];
  /** Exits to user space a second. */
  readonly exits: readonly number[];
  /** Exits a second by reason, of the last interval. */
  readonly reasons: Readonly<Record<string, number>>;
}

export interface Activity {
  readonly exits: readonly number[];
  /** Bytes a second of all disks. */
  readonly read: readonly number[];
  readonly written: readonly number[];
  /** Bytes a second of all network cards, as the guest sees them. */
  readonly received: readonly number[];
  readonly sent: readonly number[];
}

/** What the machine is asked at each poll. */
interface Numbers {
  readonly counters: CountersReport;
  readonly disks: readonly DiskReport[];
  readonly nets: readonly NetReport[];
}

/** RAM that the host has in memory, in bytes: a value a second, oldest first. */
export interface ResidenceHistory {
  readonly bytes: readonly number[];
  /** Bytes more than before, a second: what the guest touched for the first time, or again after it was given back. */
  readonly grown: readonly number[];
}

const sum = (counts: Readonly<Record<string, number>>) => Object.values(counts).reduce((a, b) => a + b, 0);
const total = <T>(list: readonly T[], value: (each: T) => number) => list.reduce((all, each) => all + value(each), 0);
/** @param count values that the interval stands for: one a second. */
const push = (series: readonly number[] | undefined, value: number, count: number) =>
  [...(series ?? []), ...Array<number>(count).fill(value)].slice(-HISTORY);

/** What a kernel's log says when something is wrong. */
const GUEST_TROUBLE: readonly (readonly [RegExp, EventLevel])[] = [
  [/Kernel panic - not syncing|BUG: |Oops: |general protection fault|soft lockup|rcu.*(?:stall|starved)/, 'bad'],
  [/WARNING: CPU|Call Trace:|I\/O error|Out of memory: /, 'warn'],
];
const ANY_TROUBLE = new RegExp(GUEST_TROUBLE.map(([{ source }]) => source).join('|'));
const MAX_LINE = 512;

/** @param offset seconds that a guest's clock is ahead of the host's. */
const clockText = (offset: number): string =>
  offset === 0 ? "as the host's" : `${Math.abs(offset)} s ${offset > 0 ? 'ahead of' : 'behind'} the host's`;

/** What a typed form calls: `vm.disks.vda.resize`. */
const callOf = (form: string): string => form.replace(/^await /, '').split('(')[0];

export class MachineModel {
  readonly vm: Vm;
  counters: CountersReport | undefined;
  plugged: PluggedReport | undefined;
  devices: DevicesReport | undefined;
  disks: readonly DiskReport[] = [];
  nets: readonly NetReport[] = [];
  memory: readonly MemoryRangeReport[] = [];
  /** The balloon of a machine that has one. */
  balloon: BalloonReport | undefined;
  residence: ResidenceHistory = { bytes: [], grown: [] };
  activity: Activity = { exits: [], read: [], written: [], received: [], sent: [] };
  readonly vcpus = new Map<number, VcpuHistory>();
  readonly events: TimelineEvent[] = [];
  /** Events that were pushed out of the timeline. */
  forgotten = 0;
  /** Requests under way, by their number. */
  readonly pending = new Map<number, LiveRequest>();
  /** The request that settled last, and when that was. */
  settled: { readonly request: LiveRequest; readonly at: number } | undefined;
  /** Why the machine does not answer, when it does not. */
  trouble: string | undefined;
  /** Measures while it is switched on. */
  readonly dirty: DirtyWatch;
  readonly clock: StationClock;
  /** When the machine began, in milliseconds of the Unix clock: with the workstation, where it is not known otherwise. */
  startedAt: number;
  readonly #listeners = new Set<() => void>();
  readonly #unlisten: (() => void)[];
  /** Calls the next poll off. */
  #offPoll: (() => void) | undefined;
  #polls = 0;
  /** What the last values of the series were made of. */
  #measured: (Numbers & { readonly at: number }) | undefined;
  #seldomAt = Number.NEGATIVE_INFINITY;
  #residenceAt = 0;
  #touchedAt: number;
  /** What changes seldom is being asked for, and has changed since. */
  #asking = false;
  #stale = false;
  #closed = false;
  #partial = '';
  /** Changes by this workstation that are under way, and said: what each calls. */
  readonly #own = new Set<{ readonly call: string }>();
  /** The last line, where its number goes on changing. */
  #going: { readonly subject: string; readonly event: TimelineEvent } | undefined;
  /** When what is told now happened, where that is not now. */
  #past: Date | undefined;

  constructor(vm: Vm, guest?: GuestChannel, clock: StationClock = hostClock) {
    this.vm = vm;
    this.clock = clock;
    this.dirty = new DirtyWatch(vm.machine, clock, HISTORY, () => this.changed());
    this.startedAt = clock.wall();
    this.#touchedAt = clock.monotonic();
    this.#unlisten = [
      vm.machine.onEvent((event) => this.#event(event)),
      actionsOf(vm.machine).onChange((change) => this.#noted(change)),
    ];
    if (guest) {
      const off = guest.onEvent((event) => {
        if (event.type === 'guest-phase') this.#phase(event);
      });
      this.#unlisten.push(off);
    }
  }

  #phase({ name, uptime }: GuestPhase): void {
    this.say('boot', `guest ${name}, ${uptime} s after its kernel began`);
  }

  /** What happened before somebody looked. */
  remember(events: readonly NotedEvent[]): void {
    const [first] = events;
    if (first) this.startedAt = Date.parse(first.time);
    for (const event of events) {
      this.#past = new Date(event.time);
      if (event.type === 'note') this.say('machine', event.text);
      else if (event.type === 'guest-phase') this.#phase(event);
      else if (event.type !== 'exit-status') this.#event(event);
    }
    this.#past = undefined;
  }

  /** Polls from now on. */
  watch(): void {
    void this.#poll();
    void this.#askPending();
  }

  /** What was asked of the machine before anybody looked. */
  async #askPending(): Promise<void> {
    const { machine } = this.vm;
    const requests = await machine.requests().catch(() => []);
    if (machine.end || this.#closed) return;
    for (const request of requests) if (!isSettled(request.stage)) this.pending.set(request.id, request);
    this.changed();
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  close(): void {
    this.#closed = true;
    this.#offPoll?.();
    this.dirty.stop();
    for (const off of this.#unlisten) off();
    this.#listeners.clear();
  }

  /** A line for the timeline. What a guest or a peer said is made harmless. */
  say(kind: EventKind, text: string, level: EventLevel = 'info'): void {
    this.events.push({ at: this.#past ?? new Date(this.clock.wall()), kind, level, text: visible(text) });
    if (this.events.length > MAX_EVENTS) {
      this.events.shift();
      this.forgotten++;
    }
    this.changed();
  }

  /** A number that goes on changing has one line, as long as nothing else is said. */
  #sayNow(kind: EventKind, subject: string, text: string): void {
    if (this.#going && this.#going.subject === subject && this.events.at(-1) === this.#going.event) this.events.pop();
    this.say(kind, `${subject} ${text}`);
    const event = this.events.at(-1);
    this.#going = event && { subject, event };
  }

  /** A change that this workstation makes, and has said: the list of what was done tells of it too. */
  own(form: string, done: Promise<unknown>): void {
    const own = { call: callOf(form) };
    this.#own.add(own);
    const over = () => void this.#own.delete(own);
    done.then(over, over);
  }

  /** What was done, taken back or done again, whoever did it. */
  #noted(change: ActionsChange): void {
    const { done, undone } = actionsOf(this.vm.machine);
    const codeOf = (list: typeof done, id: number) => list.find((each) => each.id === id)?.code ?? '';
    const [call, text] =
      'did' in change
        ? [callOf(change.did.code), change.did.code]
        : 'undid' in change
          ? ['vm.journal.undo', `undone: ${codeOf(undone, change.undid)}`]
          : ['vm.journal.redo', `done again: ${codeOf(done, change.redid)}`];
    const own = [...this.#own].find((each) => each.call === call);
    if (own) this.#own.delete(own);
    else this.say('action', text);
    void this.#askAnew();
  }

  changed(): void {
    for (const listener of this.#listeners) listener();
  }

  /** Every byte that the guest's kernel console printed passes here. */
  watchConsole(bytes: Uint8Array): void {
    const text = this.#partial + Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
    const end = text.lastIndexOf('\n') + 1;
    this.#partial = text.slice(Math.max(end, text.length - MAX_LINE));
    // A guest may print millions of lines a second: they are looked at together.
    if (!ANY_TROUBLE.test(text)) return;
    for (const line of text.slice(0, end).split('\n')) {
      const found = GUEST_TROUBLE.find(([pattern]) => pattern.test(line));
      if (found) this.say('guest', line.replace(/\r$/, '').slice(0, MAX_LINE), found[1]);
    }
  }

  /** Asks for everything now. */
  async refresh(): Promise<void> {
    this.#seldomAt = Number.NEGATIVE_INFINITY;
    await this.#poll();
  }

  /** Somebody is there. */
  touch(): void {
    const slept = this.#interval > POLL_MS;
    this.#touchedAt = this.clock.monotonic();
    if (!slept || !this.#offPoll || this.#closed) return;
    this.#offPoll?.();
    this.#offPoll = this.clock.after(POLL_MS, () => void this.#poll());
  }

  get #interval(): number {
    if (this.clock.monotonic() - this.#touchedAt < IDLE_AFTER_MS) return POLL_MS;
    const load = [...this.vcpus.values()].reduce((sum, { utilisation }) => sum + (utilisation.at(-1) ?? 0), 0);
    const busy = load > IDLE_LOAD || (this.activity.exits.at(-1) ?? 0) > IDLE_EXITS;
    return busy ? POLL_MS : IDLE_POLL_MS;
  }

  async #poll(): Promise<void> {
    const { machine } = this.vm;
    this.#offPoll?.();
    this.#offPoll = undefined;
    const poll = ++this.#polls;
    const seldom = this.clock.monotonic() - this.#seldomAt > SELDOM_MS - POLL_MS / 2;
    try {
      if (machine.state === 'running' || machine.state === 'paused' || machine.state === 'created') {
        const [counters, disks, nets] = await Promise.all([machine.counters(), machine.disks(), machine.nets()]);
        this.#measure({ counters, disks, nets });
        if (seldom) await this.#askSeldom();
        this.trouble = undefined;
      }
    } catch (error) {
      this.trouble = (error as Error).message;
    }
    if (this.#closed) return;
    this.changed();
    // The latest of those that overlap has the next one follow.
    if (poll !== this.#polls) return;
    this.#offPoll = this.clock.after(this.#interval, () => void this.#poll());
  }

  async #askSeldom(): Promise<void> {
    const { machine } = this.vm;
    this.#seldomAt = this.clock.monotonic();
    const [plugged, devices, memory, balloon] = await Promise.all([
      machine.plugged(),
      machine.devices(),
      machine.memoryMap(),
      // Most machines have none.
      machine.balloon().catch(() => undefined),
    ]);
    this.plugged = plugged;
    this.devices = devices;
    this.balloon = balloon;
    this.#measureResidence(memory);
  }

  #measureResidence(memory: readonly MemoryRangeReport[]): void {
    const now = this.clock.monotonic();
    const seconds = (now - this.#residenceAt) / 1000;
    const bytes = memory.reduce((all, { resident }) => all + resident, 0);
    const before = this.residence.bytes.at(-1);
    this.memory = memory;
    if (before !== undefined && seconds < LEAST_SECONDS) return;
    const count = before === undefined ? 1 : Math.max(1, Math.min(HISTORY, Math.round(seconds)));
    this.#residenceAt = now;
    this.residence = {
      bytes: push(this.residence.bytes, bytes, count),
      grown: push(this.residence.grown, before === undefined ? 0 : Math.max(0, bytes - before) / seconds, count),
    };
  }

  /** Media, limits and links; what went through them is measured elsewhere. */
  async #askBackends(): Promise<void> {
    const { machine } = this.vm;
    [this.disks, this.nets] = await Promise.all([machine.disks(), machine.nets()]);
  }

  #measure(numbers: Numbers): void {
    const { counters, disks, nets } = numbers;
    const at = this.clock.monotonic();
    const before = this.#measured;
    this.counters = counters;
    this.disks = disks;
    this.nets = nets;
    const present = new Set(counters.vcpus.map(({ index }) => index));
    for (const index of this.vcpus.keys()) if (!present.has(index)) this.vcpus.delete(index);
    const seconds = (at - (before?.at ?? at)) / 1000;
    if (before && seconds < LEAST_SECONDS) return;
    this.#measured = { ...numbers, at };
    if (!before) return;
    const count = Math.max(1, Math.min(HISTORY, Math.round(seconds)));
    for (const vcpu of counters.vcpus) this.#measureVcpu(vcpu, before.counters.vcpus, seconds, count);
    const next = (series: readonly number[], bytes: (numbers: Numbers) => number) =>
      push(series, Math.max(0, bytes(numbers) - bytes(before)) / seconds, count);
    const { exits, read, written, received, sent } = this.activity;
    this.activity = {
      exits: next(exits, (of) => of.counters.total),
      read: next(read, (of) => total(of.disks, ({ operations }) => operations.read.bytes)),
      written: next(written, (of) => total(of.disks, ({ operations }) => operations.write.bytes)),
      received: next(received, (of) => total(of.nets, ({ rx }) => rx.bytes)),
      sent: next(sent, (of) => total(of.nets, ({ tx }) => tx.bytes)),
    };
  }

  #measureVcpu(vcpu: VcpuReport, before: readonly VcpuReport[], seconds: number, count: number): void {
    const last = before.find(({ index }) => index === vcpu.index);
    // A vCPU that was taken out and put back begins anew.
    if (last?.threadId !== vcpu.threadId) return;
    const history = this.vcpus.get(vcpu.index);
    const reasons = Object.fromEntries(
      Object.entries(vcpu.exits)
        .map(([name, count]) => [name, (count - (last.exits[name] ?? 0)) / seconds] as const)
        .filter(([, rate]) => rate > 0)
        .sort(([, a], [, b]) => b - a),
    );
    this.vcpus.set(vcpu.index, {
      utilisation: push(history?.utilisation, Math.min(1, (vcpu.cpuTime - last.cpuTime) / 1e9 / seconds), count),
      exits: push(history?.exits, (sum(vcpu.exits) - sum(last.exits)) / seconds, count),
      reasons,
    });
  }

  #event(event: MachineEvent): void {
    switch (event.type) {
      case 'state':
        this.say('machine', event.state, event.state === 'running' ? 'good' : 'info');
        // Nobody is left to do what was asked.
        if (event.state === 'ended' || event.state === 'closed') this.pending.clear();
        return;
      case 'reset':
        this.say('machine', `reset by ${event.cause}`, 'warn');
        return;
      case 'panic':
        this.say('guest', `panic: ${event.detail}`, 'bad');
        return;
      case 'crash-loaded':
        this.say('guest', 'a crash kernel takes over', 'warn');
        return;
      case 'triple-fault':
        this.say('machine', `triple fault of vCPU ${event.vcpu}`, 'bad');
        return;
      case 'internal-error':
        this.say('machine', `vCPU ${event.vcpu}: ${event.detail}`, 'bad');
        return;
      case 'guest-fault':
        this.say('device', `${event.device}: ${event.text}`, 'warn');
        return;
      case 'watchdog':
        this.say('device', `the watchdog was not fed: ${event.action}`, 'bad');
        return;
      case 'debug':
        // Whoever steps does it often.
        if (event.reason === 'step') return;
        this.say('machine', `vCPU ${event.vcpu} is at a breakpoint of a debugger (${event.reason}, ${event.address})`);
        return;
      case 'disk-error':
        this.say(
          'device',
          `${event.disk}: ${event.operation} at ${event.offset} failed with ${event.errno}${event.action === 'stop' ? '; the machine is paused' : ''}`,
          event.action === 'stop' ? 'bad' : 'warn',
        );
        return;
      case 'balloon':
        this.#sayNow('device', 'the balloon holds', formatSize(event.actual));
        return;
      case 'memory-size':
        this.#sayNow(
          'device',
          event.device,
          `has ${formatSize(event.plugged)} plugged, of ${formatSize(event.requested)} that were asked for`,
        );
        return;
      case 'clock-set':
        this.say('guest', `its clock was set, ${clockText(event.offset)}`);
        return;
      case 'port':
        this.say('guest', `${event.name} was ${event.open ? 'opened' : 'closed'}`);
        return;
      case 'console':
        this.say('device', `console ${event.name} ${event.change === 'added' ? 'has come' : 'has gone'}`);
        return;
      case 'request':
        this.#requested(event.request);
        return;
      case 'action':
        this.say('action', event.text);
        return;
      case 'phase':
        this.say('boot', `${event.name} after ${Math.round(event.ms)} ms`);
        return;
      case 'ended':
        this.say('machine', `ended: ${event.end.detail}`, event.end.reason === 'poweroff' ? 'info' : 'bad');
    }
  }

  #requested(request: LiveRequest): void {
    const { id, action, device, stage, reason } = request;
    const failed = stage === 'refused' || stage === 'timed-out';
    const level = failed ? 'bad' : stage === 'online' || stage === 'reached' || stage === 'removed' ? 'good' : 'info';
    this.say('hotplug', `${action} ${device.id}: ${stage}${reason ? ` (${reason})` : ''}`, level);
    // Of what happened before, not all is remembered: the machine says what is still under way.
    if (this.#past) return;
    if (isSettled(stage)) {
      this.pending.delete(id);
      this.settled = { request, at: this.clock.wall() };
    } else this.pending.set(id, request);
    void this.#askAnew();
  }

  /** Something is not as it was told last. However often that happens, it is asked for once at a time. */
  async #askAnew(): Promise<void> {
    this.#stale = true;
    if (this.#asking) return;
    this.#asking = true;
    while (this.#stale && !this.#closed) {
      this.#stale = false;
      await Promise.all([this.#askSeldom(), this.#askBackends()]).then(
        () => this.changed(),
        () => {},
      );
    }
    this.#asking = false;
  }
}
