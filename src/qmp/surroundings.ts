import type { ConsoleProvider } from '../client/shared_console.ts';

/** A pseudo-terminal that stands for a console, once that is there. */
export interface ConsoleTerminal {
  /** What a program opens. */
  readonly path: string;
  /** @throws NemuError CONSOLE for a name that is none. */
  connect(console: string): void;
  close(): void;
}

/** Where gdb connects to the machine. */
export interface GdbServer {
  /** In place of where it listened. @param device as QEMU writes it: `tcp::1234`. @throws NemuError USAGE, GDB_SOCKET */
  listen(device: string): Promise<string>;
  stop(): void;
}

/** What a machine has beside the machine. */
export interface Surroundings {
  /** Its consoles, for as many as want to look; without them each console is somebody else's. */
  readonly consoles?: ConsoleProvider;
  /** @throws SystemError where the host has no more. */
  readonly terminal?: () => ConsoleTerminal;
  readonly gdbServer?: GdbServer;
}
