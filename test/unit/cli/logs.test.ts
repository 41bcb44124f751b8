/** Logs of consoles: their last lines, what was lost, and files that follow each other. */
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { tailFile } from '../../../src/cli/machines/tail.ts';
import { ConsoleLog, LogReader, previousLog } from '../../../src/console/console_log.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'nemu-logs-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe('logs', () => {
  const read = async (path: string, lines?: number) => {
    const pieces: Buffer[] = [];
    for await (const { bytes } of tailFile(path, lines === undefined ? {} : { lines })) pieces.push(bytes);
    return Buffer.concat(pieces).toString();
  };

  test('give their last lines, whether the last one is whole or not', async () => {
    const path = join(folder, 'log');
    writeFileSync(path, 'one\ntwo\nthree\n');
    expect([await read(path), await read(path, 2), await read(path, 0), await read(path, 99)]).toEqual([
      ...['one\ntwo\nthree\n', 'two\nthree\n', '', 'one\ntwo\nthree\n'],
    ]);
    writeFileSync(path, 'one\ntwo\nthr');
    expect([await read(path, 1), await read(path, 2)]).toEqual(['thr', 'two\nthr']);
    const long = Array.from({ length: 100_000 }, (_, i) => `line ${i}\n`);
    writeFileSync(path, long.join(''));
    expect(await read(path, 60_000)).toBe(long.slice(40_000).join(''));
  });

  test('say when lines came, and where bytes are missing', () => {
    const path = join(folder, 'log');
    const log = new ConsoleLog(path, () => {});
    log.bytes(Buffer.from('first\nsec'));
    log.lost(12);
    log.bytes(Buffer.from('ond\n'));
    log.close();
    const shown = new LogReader(path, true).show(Buffer.from('first\nsecond\n'), 0).toString();
    expect(shown).toMatch(/^\S+Z first\n\S+Z sec\n\[nemu\] 12 bytes were lost here.*\n\S+Z ond\n$/);
  });

  test('go on in a new file when they are long: what was before is kept, shown first, and followed over', async () => {
    const path = join(folder, 'long');
    writeFileSync(previousLog(path), 'of another machine\n');
    const log = new ConsoleLog(path, () => {}, 1000);
    expect(existsSync(previousLog(path))).toBe(false);
    const line = (index: number) => `line ${String(index).padStart(4, '0')}\n`;
    const all = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => line(from + i)).join('');
    let over = false;
    let followed = '';
    const following = (async () => {
      for await (const { bytes } of tailFile(path, { follow: { isOver: () => over } }, previousLog(path)))
        followed += bytes;
    })();
    for (let index = 0; index < 350; index++) {
      // Lines come in pieces, and are not cut.
      log.bytes(Buffer.from(line(index).slice(0, 4)));
      log.bytes(Buffer.from(line(index).slice(4)));
      if (index % 50 === 0) await sleep(250);
    }
    log.close();
    over = true;
    await following;
    expect(followed).toBe(all(0, 350));
    expect(statSync(path).size).toBeLessThanOrEqual(1000);
    expect(statSync(previousLog(path)).size).toBe(1000);
    const read = async (lines?: number) => {
      let text = '';
      const options = lines === undefined ? {} : { lines };
      for await (const { bytes } of tailFile(path, options, previousLog(path))) text += bytes;
      return text;
    };
    expect(await read()).toBe(all(200, 350));
    expect(await read(3)).toBe(all(347, 350));
    expect(await read(120)).toBe(all(230, 350));
    const old = readFileSync(previousLog(path));
    expect(new LogReader(previousLog(path), true).show(old, 0).toString()).toMatch(/^(\S+Z line \d{4}\n){100}$/);
  });

  test('say of what was lost only where it was lost', () => {
    const path = join(folder, 'log');
    const log = new ConsoleLog(path, () => {});
    log.bytes(Buffer.from('early\n'));
    log.lost(777);
    log.bytes(Buffer.from('second\n'));
    log.lost(12);
    log.bytes(Buffer.from('third\n'));
    log.close();
    const from = (place: number, text: string) => new LogReader(path, false).show(Buffer.from(text), place).toString();
    expect(from(13, 'third\n')).toMatch(/^\[nemu\] 12 bytes were lost here: .*\nthird\n$/);
    expect(from(15, 'ird\n')).toBe('ird\n');
    expect(new LogReader(path, true).show(Buffer.from('ird\n'), 15).toString()).toMatch(/^\S+Z ird\n$/);
  });

  test('of which files were gone before they were read say so, and give the rest', async () => {
    const path = join(folder, 'log');
    const log = new ConsoleLog(path, () => {}, 100);
    const line = (index: number) => Buffer.from(`line ${String(index).padStart(4, '0')}\n`);
    const write = (from: number, to: number) => {
      for (let index = from; index < to; index++) log.bytes(line(index));
    };
    let over = false;
    const tail = tailFile(path, { follow: { isOver: () => over } }, previousLog(path));
    const next = async () => (await tail.next()).value;
    write(0, 1);
    expect(await next()).toMatchObject({ bytes: line(0), file: 0 });
    // One file more: nothing is missing.
    write(1, 15);
    const rest = [await next(), await next()];
    expect(rest).toMatchObject([
      { file: 0, place: 10 },
      { file: 1, place: 0 },
    ]);
    expect(rest.some((piece) => piece?.gap)).toBe(false);
    write(15, 45);
    over = true;
    const more = [await next(), await next(), await next()];
    expect(more.map((piece) => [piece?.bytes.toString().slice(0, 9), piece?.file, piece?.gap])).toEqual([
      ['line 0015', 1, undefined],
      ['line 0030', 2, true],
      ['line 0040', 3, undefined],
    ]);
    expect(await next()).toBeUndefined();
    log.close();
  });
});
