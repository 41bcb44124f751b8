/** Consoles of the workstation that go to files: logs, and recordings for `nemu play`. */
import { join } from 'node:path';
import { CastRecorder } from '../console/asciicast.ts';
import { ConsoleLog } from '../console/console_log.ts';
import type { ConsoleTap } from '../console/hub.ts';
import { fromHome } from './path_text.ts';
import type { TerminalPane } from './terminal_pane.ts';

export const FILE_KINDS = ['log', 'recording'] as const;
export type FileKind = (typeof FILE_KINDS)[number];

interface OpenFile {
  readonly path: string;
  readonly stop: () => void;
}

export class ConsoleFiles {
  readonly #folder: string;
  readonly #machine: string;
  readonly #failed: (text: string) => void;
  readonly #open = new Map<TerminalPane, Map<FileKind, OpenFile>>();

  /** @param failed told when a file ends before it was asked to, as on a full disk. */
  constructor(folder: string, machine: string, failed: (text: string) => void) {
    this.#folder = folder;
    this.#machine = machine;
    this.#failed = failed;
  }

  /** What a console goes to now. */
  of(pane: TerminalPane): readonly FileKind[] {
    return [...(this.#open.get(pane)?.keys() ?? [])];
  }

  /** Begins or ends a file. @returns what there is to say of it. @throws Error of the system. */
  toggle(pane: TerminalPane, kind: FileKind): string {
    const files = this.#open.get(pane) ?? new Map<FileKind, OpenFile>();
    this.#open.set(pane, files);
    const before = files.get(kind);
    if (before) {
      files.delete(kind);
      before.stop();
      return `${fromHome(before.path)} is complete${kind === 'recording' ? '; nemu play shows it' : ''}.`;
    }
    const time = new Date().toISOString().replaceAll(':', '');
    const path = join(this.#folder, `${this.#machine}-${pane.name}-${time}.${kind === 'log' ? 'log' : 'cast'}`);
    files.set(kind, { path, stop: kind === 'log' ? this.#log(pane, path) : this.#record(pane, path) });
    return `${pane.name} goes to ${fromHome(path)}`;
  }

  #log(pane: TerminalPane, path: string): () => void {
    return this.#follow(pane, new ConsoleLog(path, (error) => this.#lost(pane, 'log', error)));
  }

  #record(pane: TerminalPane, path: string): () => void {
    const { rows, cols } = pane.terminal;
    const title = `${this.#machine} ${pane.name}`;
    const recorder = new CastRecorder(path, { rows, columns: cols }, title, (error) =>
      this.#lost(pane, 'recording', error),
    );
    let off: (() => void) | undefined;
    let stopped = false;
    // It begins with the screen as it is.
    pane.copy((screen, rest) => {
      if (stopped) return;
      recorder.bytes(Buffer.from(screen));
      for (const bytes of rest) recorder.bytes(bytes);
      off = pane.tap(recorder);
    });
    return () => {
      stopped = true;
      off?.();
      recorder.close();
    };
  }

  #follow(pane: TerminalPane, tap: ConsoleTap): () => void {
    const off = pane.tap(tap);
    return () => {
      off();
      tap.close?.();
    };
  }

  #lost(pane: TerminalPane, kind: FileKind, error: Error): void {
    this.#open.get(pane)?.delete(kind);
    this.#failed(`${pane.name}: the ${kind} has ended: ${error.message}`);
  }

  /** A console has gone. */
  end(pane: TerminalPane): void {
    for (const { stop } of this.#open.get(pane)?.values() ?? []) stop();
    this.#open.delete(pane);
  }

  close(): void {
    for (const pane of [...this.#open.keys()]) this.end(pane);
  }
}
