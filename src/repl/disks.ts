/** Disks of the machine, as the REPL has them. */
import { inspect } from 'node:util';
import { actionsOf, type NotedAction } from '../client/actions.ts';
import { memberCode } from '../client/code.ts';
import type { ThrottleInput } from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import type { UnplugOptions } from '../client/live.ts';
import type { DiskChangeInput } from '../client/live_change.ts';
import type { DiskReport } from '../client/machine_client.ts';
import { diskSizeNote, diskThrottleNote, mediumNote } from '../client/notes.ts';
import { fromFolder } from '../client/paths.ts';
import { formatSize } from '../client/sizes.ts';
import { bytesOf, requireObject, requireText } from './arguments.ts';
import type { Done } from './values.ts';
import type { Vm } from './vm.ts';

/** A disk, by its name. */
export class Disk {
  readonly name: string;
  readonly #vm: Vm;

  constructor(vm: Vm, name: string) {
    this.#vm = vm;
    this.name = name;
  }

  /** What it did so far: requests, bytes, latency, by operation. */
  async statistics(): Promise<DiskReport> {
    const found = (await this.#vm.machine.disks()).find(({ name }) => name === this.name);
    if (found) return found;
    throw new NemuError('DISK', `There is no disk "${this.name}" any more.`);
  }

  /** Limits its requests and bytes in a second: `{ iops: 500, bps: 10e6 }`; `{}` for none. */
  async throttle(limits: ThrottleInput): Promise<void> {
    requireObject(limits, `${this.#code}.throttle({ iops: 500 })`);
    const note = diskThrottleNote(await this.statistics(), limits);
    await this.#vm.journal.do({ ...note, run: () => this.#vm.machine.throttle(this.name, limits) });
  }

  /**
   * Gives the disk another size, and tells the guest: `resize('2G')`. A smaller one needs `{ shrink: true }`, since what
   * is behind its end is lost. Without a size, looks at what the device behind it has now.
   * @throws NemuError CHANGE, DISK
   */
  async resize(size?: string | number, options: { readonly shrink?: boolean } = {}): Promise<DiskState> {
    requireObject(options, `${this.#code}.resize('2G', { shrink: true })`);
    const bytes = size === undefined ? undefined : bytesOf(size);
    const note = diskSizeNote(
      await this.statistics(),
      size === undefined || bytes === undefined ? undefined : { size, bytes },
      options,
    );
    return this.#do(note, { action: 'resize', ...(bytes !== undefined && { size: bytes }), ...options });
  }

  /**
   * Puts another image into the disk: `change('other.img')`, `change('other.img', { format: 'raw' })`. The guest should
   * use nothing of the disk meanwhile: it hears of the new capacity, and keeps what it has cached.
   * @throws NemuError CHANGE, DISK
   */
  async change(file: string, options: { readonly format?: 'raw' | 'qcow2' } = {}): Promise<DiskState> {
    requireText(file, 'a file', `${this.#code}.change('other.img')`);
    requireObject(options, `${this.#code}.change('other.img', { format: 'raw' })`);
    const absolute = fromFolder(process.cwd(), file);
    const named = actionsOf(this.#vm.machine).shared ? absolute : file;
    const note = mediumNote(await this.statistics(), named, options);
    return this.#do(note, { action: 'medium', file: absolute, ...options });
  }

  /** Takes it out when the guest lets go; with `force`, at once. @throws NemuError REFUSED with the guest's reason. */
  unplug(options: UnplugOptions = {}): Promise<Done> {
    return this.#vm.unplug(this.name, options);
  }

  get #code(): string {
    return memberCode('vm.disks', this.name);
  }

  #do(note: NotedAction, change: DiskChangeInput): Promise<DiskState> {
    const run = async () => new DiskState(await this.#vm.machine.changeDisk(this.name, change));
    return this.#vm.journal.do({ ...note, run });
  }

  [inspect.custom](): string {
    return `disk ${this.name}`;
  }
}

/** A disk as it is after a change; prints as a line. */
export class DiskState {
  readonly report: DiskReport;

  constructor(report: DiskReport) {
    this.report = report;
  }

  [inspect.custom](): string {
    const { name, size, file, format, readonly } = this.report;
    return `${name}: ${formatSize(size)}, ${format}${readonly ? ', read-only' : ''}, ${file}`;
  }
}
