/** Entry of vCPU threads: on its own, because every further vCPU loads it once more. */
import { playRole } from './thread_entry.ts';
import { runVcpu } from './vcpu_thread.ts';

playRole(runVcpu);
