/** What all panes have in common: rows, of which some can be chosen, below a title. */
import type { Glyphs } from '../graph.ts';
import type { MachineModel } from '../model.ts';
import { type Line, plainText, type Span, span, withParts } from '../style.ts';

export interface Row {
  readonly line: Line;
  /** What the row stands for, when it can be chosen. */
  readonly key?: string;
  /** What a filter looks at, where the line has not had room for all. */
  readonly text?: string;
}

/** A row with as many of the parts behind its head as there is room for; a filter looks at all of them. */
export function rowWithParts(key: string, head: Line, parts: readonly Span[], width: number): Row {
  const text = plainText([...head, ...parts.flatMap((part) => [span(' '), part])]);
  return { key, line: withParts(head, parts, width), text };
}

/** How far a request under way has come, for the row of its device. */
export function stageOf({ pending }: MachineModel, id: string | undefined): Span[] {
  const request = [...pending.values()].findLast(({ device }) => device.id === id);
  return request ? [span(`${request.action}: ${request.stage}`, 'accent')] : [];
}

export interface PaneContext {
  readonly model: MachineModel;
  /** Cells inside the frame. */
  readonly width: number;
  readonly height: number;
  readonly glyphs: Glyphs;
}

export interface PaneContent {
  readonly title: string;
  readonly rows: readonly Row[];
}

/** A number with three digits or so: 950, 1.2k, 34M. */
export function compact(value: number): string {
  if (!Number.isFinite(value)) return '-';
  for (const [size, unit] of [
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k'],
  ] as const) {
    if (value >= size * 0.9995) return `${(value / size).toFixed(value >= size * 9.95 ? 0 : 1)}${unit}`;
  }
  return value >= 10 || value === 0 ? String(Math.round(value)) : value.toFixed(1);
}

/** Bytes in binary units with three digits or so. */
export function compactBytes(value: number): string {
  for (const [size, unit] of [
    [2 ** 30, 'G'],
    [2 ** 20, 'M'],
    [2 ** 10, 'K'],
  ] as const) {
    if (value >= size) return `${(value / size).toFixed(value >= size * 9.95 || value % size === 0 ? 0 : 1)}${unit}`;
  }
  return String(Math.round(value));
}

export const hex = (value: number): string => `0x${value.toString(16)}`;
