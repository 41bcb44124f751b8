import type { ConsoleProvider } from '../client/shared_console.ts';

/** A pseudo-terminal that stands for a console, once that is there. */
export interface ConsoleTerminal {
  /** What a program opens. */
  readonly path: string;
  /** @throws NemuError CONSOLE for a name that is none. */
  connect(console: string): void;
  close(): void;
}

/** What a machine has beside the machine. */
export interface Surroundings {
  /** Its consoles, for as many as want to look; without them each console is somebody else's. */
  readonly consoles?: ConsoleProvider;
  /** @throws SystemError where the host has no more. */
  readonly terminal?: () => ConsoleTerminal;
}
