/** As much of the npm package qemu-qmp as its test uses; it has no types of its own. */
declare module 'qemu-qmp' {
  import type { Socket } from 'node:net';

  type Answer = (error: Error | null, value: unknown) => void;
  export default class QMP extends Socket {
    readonly version: unknown;
    override connect(...options: never[]): this;
    connect(path: string, connected: (error: Error | null) => void): void;
    execute(command: string, done: Answer): void;
    execute(command: string, args: object, done: Answer): void;
  }
}
