import { pmTimerValue } from '../devices/ich9_pm.ts';
import { KVM_COALESCED_MMIO_PAGE_OFFSET, KVM_RUN, kvm_run } from '../ffi/kvm/common.ts';
import { EAGAIN, EINTR, errno, gettid, raw, schedSetaffinity, setThreadName, viewOf } from '../ffi/libc.ts';
import { guestNow } from './clock.ts';
import { decodeExit, newExit } from './exit.ts';
import { readConfig } from './pci/config_pages.ts';
import {
  C,
  counterIndex,
  H,
  type LocalRegister,
  POST_DONE,
  POST_IDLE,
  POST_POSTED,
  POST_WAITING,
  RUN_ENDED,
  RUN_PAUSED,
  RUN_RUNNING,
  S,
  type SharedBlock,
  slotData,
  slotWord,
  viewShared,
} from './shared.ts';

/** What a vCPU thread is started with. */
export interface VcpuThreadData {
  readonly role: 'vcpu';
  readonly index: number;
  readonly vcpus: number;
  readonly shared: SharedArrayBuffer;
  /** eventfd that wakes the machine thread. */
  readonly wakeFd: number;
  readonly local: readonly LocalRegister[];
  /** Configuration space of every PCI function, in a machine that has PCI. */
  readonly configPages: SharedArrayBuffer | undefined;
  readonly pinning: readonly number[] | undefined;
  /** Makes the thread throw instead of entering the guest: for the tests of what a fault leaves behind. */
  readonly fault?: boolean;
}

/** `S.KIND` of a posted exit. */
export const KIND_IO = 0;
export const KIND_MMIO = 1;
/** The machine thread judges the kvm_run page itself. */
export const KIND_OTHER = 2;
/** KVM_RUN itself failed; VALUE_LOW is errno. */
export const KIND_ERROR = 3;

const PAGE = 4096;
/** What is written to an eventfd. */
const BELL = new Uint8Array(new BigUint64Array([1n]).buffer);
/** Of a write to 0xcf8: enable, bus, device, function and register. */
const PCI_ADDRESS_BITS = 0x80fffffc | 0;
/** Bits of LSR whose read has the side effect of clearing them: OE, PE, FE, BI. */
const LSR_ERRORS = 0x1e;
/**
 * Polls of the mailbox before a vCPU thread sleeps. Below the minimum an awake machine thread is missed
 * (its answer takes about 0.3 µs); above the maximum a processor is taken from the thread that would answer.
 */
const SPIN_MIN = 64;
const SPIN_MAX = 2048;

/**
 * The KVM_RUN loop of one vCPU. Returns when the machine stops.
 *
 * A kick is: the flag in the header, then `immediate_exit`, then the signal. KVM_RUN then returns EINTR
 * whenever the three arrive, so flags are looked at only after EINTR.
 */
export function runVcpu(data: VcpuThreadData): void {
  const block = viewShared(data.shared, data.vcpus);
  try {
    loop(data, block);
  } finally {
    // Also when it threw: those who stop the machine wait for this word.
    const slot = slotWord(data.index);
    Atomics.store(block.words, slot + S.RUN_STATE, RUN_ENDED);
    Atomics.notify(block.words, slot + S.RUN_STATE);
    if (Atomics.load(block.words, slot + S.LEAVE)) ringForCpus(block, data.wakeFd);
  }
}

/** The machine thread is to look at its vCPUs. */
function ringForCpus({ words }: SharedBlock, wakeFd: number): void {
  Atomics.store(words, H.CPUS, 1);
  if (Atomics.exchange(words, H.SLEEPING, 0) === 1) raw.write(wakeFd, BELL, 8);
}

function loop(data: VcpuThreadData, block: SharedBlock): void {
  const { words, doubles } = block;
  const slot = slotWord(data.index);
  const count = (counter: number) => {
    doubles[counterIndex(data.index, counter)]++;
  };
  setThreadName(`vcpu${data.index}`);
  Atomics.store(words, slot + S.TID, gettid());
  if (data.pinning) schedSetaffinity(0, data.pinning);

  while (Atomics.load(words, slot + S.GO) === 0 && !Atomics.load(words, H.STOP)) Atomics.wait(words, slot + S.GO, 0);
  if (Atomics.load(words, H.STOP)) return;

  const fd = Atomics.load(words, slot + S.FD);
  const mapping = viewOf(doubles[(slot + S.RUN_ADDRESS) / 2], Atomics.load(words, slot + S.RUN_LENGTH));
  const run = new DataView(mapping);
  const runBytes = new Uint8Array(mapping);
  const ring = new Uint32Array(mapping, KVM_COALESCED_MMIO_PAGE_OFFSET * PAGE, 2);
  const stringData = slotData(block, data.index);
  const immediateExit = kvm_run.offsets.immediate_exit;
  const exit = newExit();
  const localByPort = new Map(
    data.local.flatMap((register, index) => {
      const ports = register.kind === 'pci-data' ? register.size : 1;
      return Array.from({ length: ports }, (_, i) => [register.port + i, { ...register, index }] as const);
    }),
  );
  const configWords = new Int32Array(data.configPages ?? new SharedArrayBuffer(0));
  const pendingWord = H.PENDING + (data.index >> 5);
  const pendingBit = 1 << (data.index & 31);
  let spin = SPIN_MAX;

  waitWhilePaused();
  if (Atomics.load(words, slot + S.LEAVE)) return;
  if (data.fault) throw new Error(`Fault injected into vCPU ${data.index}.`);

  while (!Atomics.load(words, H.STOP)) {
    if (raw.ioctl(fd, KVM_RUN, 0) < 0) {
      const error = errno();
      if (error === EINTR) {
        count(C.KICKS);
        Atomics.store(runBytes, immediateExit, 0);
        // KVM has applied the last exit's result before it returned EINTR: no exit is half done here.
        waitWhilePaused();
        if (Atomics.load(words, slot + S.LEAVE)) return;
        continue;
      }
      // A vCPU that waited to be started, and got an INIT or a start-up IPI.
      if (error === EAGAIN) {
        if (Atomics.exchange(words, slot + S.STARTED, 1) === 0) ringForCpus(block, data.wakeFd);
        continue;
      }
      Atomics.store(words, slot + S.VALUE_LOW, error);
      post(KIND_ERROR);
      continue;
    }
    decodeExit(run, exit);
    count(C.REASON + (exit.reason < C.LOCAL ? exit.reason : 0));
    if (exit.kind === 'io') {
      if (exit.count === 1 && serveLocally()) continue;
      forwardIo();
    } else if (exit.kind === 'mmio') {
      forwardMmio();
    } else if (exit.kind === 'other') {
      post(KIND_OTHER);
    }
  }
  function setRunState(state: number): void {
    if (Atomics.exchange(words, slot + S.RUN_STATE, state) !== state) Atomics.notify(words, slot + S.RUN_STATE);
  }

  /**
   * Says RUNNING before it looks at PAUSE, as the one who pauses looks at the state after setting PAUSE: one of the
   * two sees the other, and nobody is in KVM_RUN that was taken for paused.
   */
  function waitWhilePaused(): void {
    for (;;) {
      setRunState(RUN_RUNNING);
      if (!isToWait() || isToEnd()) return;
      setRunState(RUN_PAUSED);
      while (isToWait() && !isToEnd()) {
        Atomics.wait(words, H.PAUSE, 1);
        if (!isToEnd()) Atomics.wait(words, slot + S.HELD, 1);
      }
    }
  }

  function isToWait(): boolean {
    return Atomics.load(words, H.PAUSE) !== 0 || Atomics.load(words, slot + S.HELD) !== 0;
  }

  function isToEnd(): boolean {
    return Atomics.load(words, H.STOP) !== 0 || Atomics.load(words, slot + S.LEAVE) !== 0;
  }

  function serveLocally(): boolean {
    const register = localByPort.get(exit.address);
    if (register === undefined) return false;
    if (exit.isWrite) {
      if (register.kind !== 'pci-address' || exit.size !== register.size) return false;
      Atomics.store(words, H.PCI_ADDRESS, run.getInt32(exit.dataOffset, true) & PCI_ADDRESS_BITS);
      count(C.LATCHED);
    } else if (register.kind === 'pci-data') {
      const offset = exit.address - register.port;
      if (offset + exit.size > register.size) return false;
      const address = Atomics.load(words, H.PCI_ADDRESS);
      // Bit 31 is the enable bit: without it nobody answers.
      const value =
        address < 0 ? readConfig(configWords, (address >>> 8) & 0xffff, (address & 0xfc) + offset, exit.size) : -1;
      run.setUint32(exit.dataOffset, value >>> 0, true);
    } else if (register.size !== exit.size) {
      return false;
    } else if (register.kind === 'lsr') {
      const value = Atomics.load(words, register.word);
      if (value & LSR_ERRORS) return false;
      run.setUint8(exit.dataOffset, value);
    } else if (register.kind === 'pci-address') {
      run.setInt32(exit.dataOffset, Atomics.load(words, H.PCI_ADDRESS), true);
    } else {
      run.setUint32(exit.dataOffset, pmTimerValue(guestNow(block)), true);
    }
    count(C.LOCAL + register.index);
    // Bytes that KVM gathered for the UART wait in the ring: the machine thread takes them while we go on.
    if (Atomics.load(ring, 0) !== Atomics.load(ring, 1) && Atomics.exchange(words, H.RING, 1) === 0) wake();
    return true;
  }

  function wake(): void {
    if (Atomics.exchange(words, H.SLEEPING, 0) === 1) raw.write(data.wakeFd, BELL, 8);
  }

  function forwardIo(): void {
    const bytes = exit.size * exit.count;
    Atomics.store(words, slot + S.IS_WRITE, exit.isWrite ? 1 : 0);
    Atomics.store(words, slot + S.SIZE, exit.size);
    Atomics.store(words, slot + S.COUNT, exit.count);
    Atomics.store(words, slot + S.ADDRESS_LOW, exit.address);
    if (exit.count > 1) {
      if (exit.isWrite) stringData.set(runBytes.subarray(exit.dataOffset, exit.dataOffset + bytes));
    } else if (exit.isWrite) {
      Atomics.store(words, slot + S.VALUE_LOW, readValue(exit.dataOffset, exit.size));
    }
    if (!post(KIND_IO) || exit.isWrite) return;
    if (exit.count > 1) runBytes.set(stringData.subarray(0, bytes), exit.dataOffset);
    else run.setUint32(exit.dataOffset, Atomics.load(words, slot + S.VALUE_LOW), true);
  }

  function readValue(offset: number, size: number): number {
    return size === 1 ? run.getUint8(offset) : size === 2 ? run.getUint16(offset, true) : run.getUint32(offset, true);
  }

  function forwardMmio(): void {
    Atomics.store(words, slot + S.IS_WRITE, exit.isWrite ? 1 : 0);
    Atomics.store(words, slot + S.SIZE, exit.size);
    Atomics.store(words, slot + S.COUNT, 1);
    Atomics.store(words, slot + S.ADDRESS_LOW, exit.address | 0);
    Atomics.store(words, slot + S.ADDRESS_HIGH, Math.floor(exit.address / 0x1_0000_0000));
    if (exit.isWrite) {
      Atomics.store(words, slot + S.VALUE_LOW, run.getInt32(exit.dataOffset, true));
      Atomics.store(words, slot + S.VALUE_HIGH, run.getInt32(exit.dataOffset + 4, true));
    }
    if (!post(KIND_MMIO) || exit.isWrite) return;
    run.setInt32(exit.dataOffset, Atomics.load(words, slot + S.VALUE_LOW), true);
    run.setInt32(exit.dataOffset + 4, Atomics.load(words, slot + S.VALUE_HIGH), true);
  }

  /** Hands the exit to the machine thread and waits until it is served. False when the machine stops. */
  function post(kind: number): boolean {
    const word = slot + S.POST;
    Atomics.store(words, slot + S.KIND, kind);
    Atomics.store(words, word, POST_POSTED);
    Atomics.or(words, pendingWord, pendingBit);
    wake();
    count(C.FORWARDED);
    for (let i = 0; i < spin; i++) {
      if (Atomics.load(words, word) === POST_DONE) {
        spin = Math.min(SPIN_MAX, spin * 2);
        Atomics.store(words, word, POST_IDLE);
        return true;
      }
    }
    spin = Math.max(SPIN_MIN, spin >> 1);
    if (Atomics.compareExchange(words, word, POST_POSTED, POST_WAITING) === POST_POSTED) {
      count(C.SLEPT);
      // The stopper stores POST_DONE after STOP, and STOP is looked at here after POSTED was stored: one
      // of the two sees the other.
      while (Atomics.load(words, word) === POST_WAITING && !Atomics.load(words, H.STOP)) {
        Atomics.wait(words, word, POST_WAITING);
      }
    }
    Atomics.store(words, word, POST_IDLE);
    return !Atomics.load(words, H.STOP);
  }
}
