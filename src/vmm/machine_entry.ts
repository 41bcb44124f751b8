/** Entry of machine threads. */
import { runMachine } from './machine_thread.ts';
import { playRole } from './thread_entry.ts';

playRole(runMachine);
