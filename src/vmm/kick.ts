import { Arena } from '../ffi/arena.ts';
import { addressOf, check, raw, tgkill } from '../ffi/libc.ts';
import { sigaction_t } from '../ffi/os.ts';
import { H, POST_DONE, RUN_RUNNING, S, type SharedBlock, slotWord } from './shared.ts';

/** A real-time signal that neither glibc, libuv nor V8 uses. */
export const SIG_KICK = 40;

/**
 * Gives SIG_KICK a handler that does nothing, so that it interrupts a system call and no more. The
 * handler is `abs`: a function of libc that takes an int and has no effect, and no callback into JavaScript,
 * which a signal may not enter. Without SA_RESTART. Once a process.
 */
export function installKickHandler(): void {
  const arena = new Arena(sigaction_t.size);
  const action = arena.struct(sigaction_t);
  action.fields.sa_handler = BigInt(addressOf('abs'));
  check(raw.sigaction(SIG_KICK, action.address, 0), 'sigaction', SIG_KICK);
  arena.free();
}

/** Sends the signal to a vCPU's thread if it may be in KVM_RUN. */
export function signalVcpu({ words }: SharedBlock, vcpu: number): void {
  const slot = slotWord(vcpu);
  const tid = Atomics.load(words, slot + S.TID);
  if (tid !== 0 && Atomics.load(words, slot + S.RUN_STATE) === RUN_RUNNING) tgkill(tid, SIG_KICK);
}

/** Sends the signal to each vCPU thread that may be in KVM_RUN. */
export function signalVcpus(block: SharedBlock): void {
  for (let vcpu = 0; vcpu < block.vcpus; vcpu++) signalVcpu(block, vcpu);
}

/** Has vCPUs wait on PAUSE, or a slot's HELD, until it is taken back: never once STOP is latched. */
export function raise({ words }: SharedBlock, word: number): void {
  Atomics.store(words, word, 1);
  // The stopper stores 0 after STOP, and STOP is looked at here after 1 was stored: one of the two sees the other.
  if (!Atomics.load(words, H.STOP)) return;
  Atomics.store(words, word, 0);
  Atomics.notify(words, word);
}

/**
 * Ends every vCPU thread of a machine, from any thread, without its help: latches STOP, answers whatever
 * waits, and repeats the signal until each loop has ended. Repeating makes up for `immediate_exit`, which
 * only the machine thread can set.
 *
 * @param timeoutMs gives up after this long.
 * @returns true when all have ended.
 */
export function stopVcpus(block: SharedBlock, timeoutMs: number): boolean {
  const { words } = block;
  Atomics.store(words, H.STOP, 1);
  // A loop that has looked at STOP before, and waits only now, must find another value than the one it waits on.
  Atomics.store(words, H.PAUSE, 0);
  Atomics.notify(words, H.PAUSE);
  const deadline = performance.now() + timeoutMs;
  for (let vcpu = 0; vcpu < block.vcpus; vcpu++) {
    const slot = slotWord(vcpu);
    Atomics.store(words, slot + S.GO, 1);
    Atomics.notify(words, slot + S.GO);
    Atomics.store(words, slot + S.HELD, 0);
    Atomics.notify(words, slot + S.HELD);
    Atomics.store(words, slot + S.POST, POST_DONE);
    Atomics.notify(words, slot + S.POST);
  }
  for (let vcpu = 0; vcpu < block.vcpus; vcpu++) {
    const word = slotWord(vcpu) + S.RUN_STATE;
    for (;;) {
      const state = Atomics.load(words, word);
      if (state !== RUN_RUNNING) break;
      if (performance.now() > deadline) return false;
      signalVcpus(block);
      Atomics.wait(words, word, state, 1);
    }
  }
  return true;
}
