import { freemem } from 'node:os';
import { type MachineDescription, possibleCpus } from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import type { InterruptReport } from '../client/interrupts.ts';
import type { GuestMemory } from '../devices/device.ts';
import { Arena, type Pinned } from '../ffi/arena.ts';
import { KVM_CAP, KVM_CREATE_IRQCHIP, KVM_ENABLE_CAP, KVM_KVMCLOCK_CTRL, kvm_enable_cap } from '../ffi/kvm/common.ts';
import * as x86 from '../ffi/kvm/x86.ts';
import { raw } from '../ffi/libc.ts';
import type { EntryState } from './boot/plan.ts';
import { setPcRouting } from './irq_routing.ts';
import { raise, signalVcpu, signalVcpus, stopVcpus } from './kick.ts';
import { Kvm, type KvmVcpu, type KvmVm } from './kvm.ts';
import type { MemoryHandle } from './memory.ts';
import { FOUR_GIB, GiB } from './memory_layout.ts';
import { H, RUN_CREATED, RUN_ENDED, RUN_RUNNING, S, type SharedBlock, slotWord } from './shared.ts';
import {
  type CpuidEntry,
  guestCpuid,
  hasTscDeadline,
  physicalAddressBits,
  setCpuid,
  supportedCpuid,
} from './x86/cpuid.ts';
import { withoutFeatures } from './x86/features.ts';
import { readIoapic, readLapic, readPic } from './x86/interrupts.ts';
import { apicIdOf, type Topology } from './x86/topology.ts';
import { type VcpuResetState, X86Vcpu } from './x86/vcpu.ts';

/** Where Intel hosts without unrestricted guest keep a TSS and an identity map: three pages and one, below the BIOS area. */
const TSS_ADDRESS = 0xfffbd000;
const IDENTITY_MAP_ADDRESS = 0xfffbc000;
/** A signal sent just before `immediate_exit` was seen is lost: repeat after this many milliseconds. */
const RESIGNAL_MS = 5;

/** Where in kvm_irqchip a chip's state begins. */
const IRQCHIP_STATE = 8;

/** A vCPU in KVM, with what a reset makes of it. */
interface Vcpu {
  readonly kvm: KvmVcpu;
  readonly x86: X86Vcpu;
  readonly resetState: VcpuResetState;
}

/** The virtual machine in KVM, its in-kernel interrupt controllers and its vCPUs; lives in the machine thread. */
export class Processors {
  readonly vm: KvmVm;
  readonly topology: Topology;
  /** Width of the guest's physical addresses. */
  readonly physicalBits: number;
  /** KVM can keep interrupts from a vCPU that is stepped. */
  readonly canBlockIrqs: boolean;
  /** Told of each vCPU that comes, before it runs. */
  onAdd: (vcpu: number) => void = () => {};
  readonly #kvm: Kvm;
  readonly #block: SharedBlock;
  /** By number: those that have a thread, and those that wait for one: KVM cannot take a vCPU back. */
  readonly #vcpus = new Map<number, Vcpu>();
  readonly #parked = new Map<number, Vcpu>();
  readonly #cpuidOf: (index: number) => CpuidEntry[];
  readonly #arena = new Arena(16 * 1024);
  readonly #clock;
  readonly #irqchips: Pinned[] = [];
  readonly #pit;
  #irqchipReset: Uint8Array[] = [];
  #pitReset: Uint8Array = new Uint8Array(0);
  #clockSaved = false;

  constructor(description: MachineDescription, memory: MemoryHandle, block: SharedBlock) {
    this.#block = block;
    this.topology = description.cpus;
    this.#kvm = new Kvm();
    this.#clock = this.#arena.struct(x86.kvm_clock_data);
    this.#pit = this.#arena.struct(x86.kvm_pit_state2);
    const most = this.#kvm.extension(KVM_CAP.MAX_VCPUS);
    this.canBlockIrqs = (this.#kvm.extension(KVM_CAP.SET_GUEST_DEBUG2) & x86.KVM_GUESTDBG_BLOCKIRQ) !== 0;
    const possible = possibleCpus(description.cpus);
    if (possible > most) {
      throw new NemuError(
        'CPU_LIMIT',
        `The machine has ${possible} vCPUs or room for them; KVM on this host takes ${most}.`,
        { hint: `Use --cpus ${most} or fewer.` },
      );
    }
    this.vm = this.#kvm.createVm();
    this.vm.ioctl(x86.KVM_SET_TSS_ADDR, 'KVM_SET_TSS_ADDR', TSS_ADDRESS);
    const identity = this.vm.arena.alloc(8);
    identity.view.setBigUint64(0, BigInt(IDENTITY_MAP_ADDRESS), true);
    this.vm.ioctl(x86.KVM_SET_IDENTITY_MAP_ADDR, 'KVM_SET_IDENTITY_MAP_ADDR', identity);
    this.vm.ioctl(KVM_CREATE_IRQCHIP, 'KVM_CREATE_IRQCHIP');
    setPcRouting(this.vm);
    const pit = this.vm.arena.struct(x86.kvm_pit_config);
    pit.fields.flags = x86.KVM_PIT_SPEAKER_DUMMY;
    this.vm.ioctl(x86.KVM_CREATE_PIT2, 'KVM_CREATE_PIT2', pit);
    this.#enableX2apicIds(possible);
    this.#mapMemory(memory);
    const supported = withoutFeatures(supportedCpuid(this.#kvm), description.cpus.without);
    this.physicalBits = physicalAddressBits(supported);
    const tscDeadline = hasTscDeadline(this.#kvm) && !description.cpus.without.includes('tsc_deadline_timer');
    this.#cpuidOf = (index) => guestCpuid(supported, this.topology, index, tscDeadline);
    for (let index = 0; index < description.cpus.count; index++) this.#vcpus.set(index, this.#create(index));
    for (const chip of [x86.KVM_IRQCHIP_PIC_MASTER, x86.KVM_IRQCHIP_PIC_SLAVE, x86.KVM_IRQCHIP_IOAPIC]) {
      const state = this.#arena.struct(x86.kvm_irqchip);
      state.fields.chip_id = chip;
      this.#irqchips.push(state);
    }
  }

  /** APIC ids above 254 need 32-bit destinations in KVM's interface. */
  #enableX2apicIds(count: number): void {
    if (apicIdOf(count - 1, this.topology) < 255) return;
    const cap = this.vm.arena.struct(kvm_enable_cap);
    cap.fields.cap = KVM_CAP.X2APIC_API;
    cap.fields.args.set(0, x86.KVM_X2APIC_API_USE_32BIT_IDS | x86.KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK);
    this.vm.ioctl(KVM_ENABLE_CAP, 'KVM_ENABLE_CAP X2APIC_API', cap);
  }

  #mapMemory(memory: MemoryHandle): void {
    for (const [slot, { gpa, size }] of memory.ranges.entries()) {
      try {
        this.vm.setMemoryRegion(slot, 0, gpa, size, memory.base + gpa);
      } catch (cause) {
        const end = gpa >= FOUR_GIB ? ` (guest-physical addresses reach ${Math.ceil((gpa + size) / GiB)} GiB)` : '';
        throw new NemuError(
          'MEMORY_LIMIT',
          `KVM did not take a memory slot of ${Math.round(size / 2 ** 20)} MiB at 0x${gpa.toString(16)}${end}.`,
          { hint: `The host has ${Math.round(freemem() / 2 ** 20)} MiB free. Use a smaller --memory.`, cause },
        );
      }
    }
  }

  #create(index: number): Vcpu {
    const kvm = this.vm.createVcpu(apicIdOf(index, this.topology));
    setCpuid(kvm, this.#cpuidOf(index));
    const vcpu = new X86Vcpu(kvm);
    vcpu.initialise();
    return { kvm, x86: vcpu, resetState: vcpu.captureReset() };
  }

  /** Numbers of the vCPUs that there are. */
  get present(): number[] {
    return [...this.#vcpus.keys()].sort((a, b) => a - b);
  }

  #vcpu(index: number): Vcpu {
    const vcpu = this.#vcpus.get(index);
    if (!vcpu) throw new Error(`There is no vCPU ${index}.`);
    return vcpu;
  }

  /** kvm_run page of a vCPU. */
  run(vcpu: number): DataView {
    return this.#vcpu(vcpu).kvm.run;
  }

  /** @throws NemuError VCPU for one that is not there. */
  kvm(vcpu: number): KvmVcpu {
    if (!this.#vcpus.has(vcpu)) throw new NemuError('VCPU', `There is no vCPU ${vcpu}.`);
    return this.#vcpu(vcpu).kvm;
  }

  /** Guest-physical address of a linear one by a vCPU's own page tables; undefined when it is not mapped. */
  translate(vcpu: number, linear: bigint): number | undefined {
    return this.#vcpu(vcpu).x86.translate(linear);
  }

  /**
   * Makes a vCPU that was not there, as after power-on; its thread may start at once, and waits in KVM until the
   * guest starts it.
   */
  add(index: number): void {
    const parked = this.#parked.get(index);
    parked?.x86.reset(parked.resetState);
    const vcpu = parked ?? this.#create(index);
    this.#parked.delete(index);
    this.#vcpus.set(index, vcpu);
    const { words } = this.#block;
    const slot = slotWord(index);
    for (const word of [S.TID, S.LEAVE, S.STARTED, S.POST, S.HELD]) Atomics.store(words, slot + word, 0);
    Atomics.store(words, slot + S.RUN_STATE, RUN_CREATED);
    this.onAdd(index);
    this.#publish(index, vcpu);
  }

  /** Has a vCPU's thread end, without waiting for it. */
  dismiss(index: number): void {
    const { words } = this.#block;
    Atomics.store(words, slotWord(index) + S.LEAVE, 1);
    this.#vcpu(index).kvm.requestImmediateExit();
    signalVcpu(this.#block, index);
    // It may wait for the machine to go on.
    Atomics.notify(words, H.PAUSE);
    this.#setHeld(index, 0);
  }

  /** Has the thread of a dismissed vCPU ended its loop? */
  hasLeft(index: number): boolean {
    return Atomics.load(this.#block.words, slotWord(index) + S.RUN_STATE) === RUN_ENDED;
  }

  /** Has the guest started a vCPU that was added? */
  wasStarted(index: number): boolean {
    return Atomics.load(this.#block.words, slotWord(index) + S.STARTED) === 1;
  }

  /** Keeps a vCPU without a thread for the next one of its number. */
  park(index: number): void {
    this.#parked.set(index, this.#vcpu(index));
    this.#vcpus.delete(index);
  }

  /** Address of page `page` of the first vCPU's mapping; page 2 is the VM's coalesced ring. */
  runMapping(): Uint8Array {
    return this.#vcpu(0).kvm.runBytes;
  }

  /** Hands descriptors to the vCPU threads and lets them go; they wait while the header says PAUSE. */
  publish(): void {
    for (const [index, vcpu] of this.#vcpus) {
      // Nobody waits for the guest to start those that are there from the beginning.
      Atomics.store(this.#block.words, slotWord(index) + S.STARTED, 1);
      this.#publish(index, vcpu);
    }
  }

  #publish(index: number, { kvm }: Vcpu): void {
    const { words, doubles } = this.#block;
    const slot = slotWord(index);
    Atomics.store(words, slot + S.FD, kvm.fd);
    Atomics.store(words, slot + S.RUN_LENGTH, this.#kvm.vcpuMmapSize);
    doubles[(slot + S.RUN_ADDRESS) / 2] = kvm.runAddress;
    Atomics.store(words, slot + S.GO, 1);
    Atomics.notify(words, slot + S.GO);
  }

  enterBoot(entry: EntryState): void {
    this.#vcpu(0).x86.enter(entry);
  }

  captureReset(): void {
    this.#irqchipReset = this.#irqchips.map((chip) => {
      this.vm.ioctl(x86.KVM_GET_IRQCHIP, 'KVM_GET_IRQCHIP', chip);
      return chip.bytes.slice();
    });
    this.vm.ioctl(x86.KVM_GET_PIT2, 'KVM_GET_PIT2', this.#pit);
    this.#pitReset = this.#pit.bytes.slice();
  }

  /** Puts interrupt controllers and vCPUs back to power-on. They must be paused. */
  reset(): void {
    for (const [i, chip] of this.#irqchips.entries()) {
      chip.bytes.set(this.#irqchipReset[i]);
      this.vm.ioctl(x86.KVM_SET_IRQCHIP, 'KVM_SET_IRQCHIP', chip);
    }
    this.#pit.bytes.set(this.#pitReset);
    this.vm.ioctl(x86.KVM_SET_PIT2, 'KVM_SET_PIT2', this.#pit);
    for (const { x86: vcpu, resetState } of this.#vcpus.values()) vcpu.reset(resetState);
  }

  /** What the interrupt controllers hold; the vCPUs must be out of the guest. */
  interrupts(): InterruptReport {
    const [master, slave, ioapic] = this.#irqchips.map((chip) => {
      this.vm.ioctl(x86.KVM_GET_IRQCHIP, 'KVM_GET_IRQCHIP', chip);
      return new DataView(chip.bytes.buffer, chip.bytes.byteOffset + IRQCHIP_STATE);
    });
    const lapics = this.present.map((index) => {
      const { state, apicBase } = this.#vcpu(index).x86.lapic();
      return readLapic(state, index, this.apicId(index), apicBase);
    });
    return { ioapic: readIoapic(ioapic), pics: [readPic(master, 'master'), readPic(slave, 'slave')], lapics };
  }

  /** Whether channel 0 of the PIT raises no interrupts, because an HPET does in its place. */
  silencePit(silent: boolean): void {
    this.vm.ioctl(x86.KVM_GET_PIT2, 'KVM_GET_PIT2', this.#pit);
    const { fields } = this.#pit;
    fields.flags = silent
      ? fields.flags | x86.KVM_PIT_FLAGS_HPET_LEGACY
      : fields.flags & ~x86.KVM_PIT_FLAGS_HPET_LEGACY;
    this.vm.ioctl(x86.KVM_SET_PIT2, 'KVM_SET_PIT2', this.#pit);
  }

  /** Asks every vCPU to leave the guest, without waiting. */
  requestPause(): void {
    raise(this.#block, H.PAUSE);
    for (const { kvm } of this.#vcpus.values()) kvm.requestImmediateExit();
    signalVcpus(this.#block);
  }

  /** Returns when every vCPU is out of the guest. `serve` answers what they still post. */
  pause(serve: () => void): void {
    this.requestPause();
    const { words } = this.#block;
    for (const index of this.#vcpus.keys()) {
      const word = slotWord(index) + S.RUN_STATE;
      let signalled = performance.now();
      while (Atomics.load(words, word) === RUN_RUNNING && !Atomics.load(words, H.STOP)) {
        serve();
        Atomics.wait(words, word, RUN_RUNNING, 0.2);
        if (performance.now() - signalled > RESIGNAL_MS) {
          signalVcpus(this.#block);
          signalled = performance.now();
        }
      }
    }
    if (this.#clockSaved) return;
    this.vm.ioctl(x86.KVM_GET_CLOCK, 'KVM_GET_CLOCK', this.#clock);
    this.#clockSaved = true;
  }

  /** Which vCPUs stay out of the guest when the machine goes on; they must be out of it. */
  hold(held: readonly number[]): void {
    for (const index of this.#vcpus.keys()) this.#setHeld(index, held.includes(index) ? 1 : 0);
  }

  #setHeld(index: number, value: 0 | 1): void {
    const { words } = this.#block;
    const word = slotWord(index) + S.HELD;
    if (value === 1) {
      raise(this.#block, word);
      return;
    }
    Atomics.store(words, word, 0);
    Atomics.notify(words, word);
  }

  resume(): undefined {
    const { words } = this.#block;
    if (this.#clockSaved) {
      this.#clock.fields.flags = 0;
      this.vm.ioctl(x86.KVM_SET_CLOCK, 'KVM_SET_CLOCK', this.#clock);
      this.#clockSaved = false;
      // Tells the guest's watchdogs that it was stopped; EINVAL from a vCPU without kvmclock is no fault.
      for (const { kvm } of this.#vcpus.values()) raw.ioctl(kvm.fd, KVM_KVMCLOCK_CTRL, 0);
    }
    Atomics.store(words, H.PAUSE, 0);
    Atomics.notify(words, H.PAUSE);
  }

  /** Ends the vCPU threads' loops. */
  stop(serve: () => void): void {
    serve();
    for (const { kvm } of this.#vcpus.values()) kvm.requestImmediateExit();
    stopVcpus(this.#block, 1000);
  }

  nmi(): void {
    for (const { x86: vcpu } of this.#vcpus.values()) vcpu.nmi();
  }

  apicId(vcpu: number): number {
    return apicIdOf(vcpu, this.topology);
  }

  /**
   * Does the vCPU stand just behind a HLT, with interrupts on? A kick takes it out of KVM's halted state, so
   * that one cannot be asked for it.
   */
  standsAtHlt(vcpu: number, memory: GuestMemory): boolean {
    const HLT = 0xf4;
    const RFLAGS_IF = 1n << 9n;
    const { rip, rflags } = this.#vcpu(vcpu).x86.registers();
    if (!(rflags & RFLAGS_IF) || rip === 0n) return false;
    const gpa = this.#vcpu(vcpu).x86.translate(rip - 1n);
    return gpa !== undefined && memory.slice(gpa, 1)?.[0] === HLT;
  }

  /** Registers of a vCPU that is out of the guest, as hexadecimal strings, and its multiprocessing state. */
  registersOf(vcpu: number): Record<string, string> & { readonly mpState: string } {
    const registers = this.#vcpu(vcpu).x86.registers();
    return Object.fromEntries(
      Object.entries(registers).map(([name, value]) => [
        name,
        name === 'mpState' ? String(value) : `0x${value.toString(16)}`,
      ]),
    ) as Record<string, string> & { readonly mpState: string };
  }

  close(): void {
    for (const { kvm } of [...this.#vcpus.values(), ...this.#parked.values()]) kvm.close();
    this.vm.close();
    this.#kvm.close();
    this.#arena.free();
  }
}
