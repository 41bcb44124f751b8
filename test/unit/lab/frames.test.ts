import { duplexPair } from 'node:stream';
import { describe, expect, it, vi } from 'vitest';
import { encodeFrame, FrameDecoder, MAX_PAYLOAD } from '../../../src/client/frames.ts';
import { LoaderClient } from '../../../src/lab/loader_client.ts';
import { FAILURE, REQUEST, RESULT, STDIN, STDOUT } from '../../../src/lab/loader_protocol.ts';
import { QmpClient } from '../../../src/lab/qmp.ts';

let state = 12345;
function random(limit: number): number {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * limit);
}

describe('frames', () => {
  it('arrive whole however the stream is cut', () => {
    const sent = Array.from({ length: 200 }, (_, index) => ({
      type: random(256),
      channel: random(2 ** 32),
      payload: Buffer.alloc(index % 7 === 0 ? 0 : random(3000), index),
    }));
    const stream = Buffer.concat(sent.map((frame) => encodeFrame(frame.type, frame.channel, frame.payload)));
    for (const most of [1, 9, 10, 500, 100_000]) {
      const decoder = new FrameDecoder();
      const got = [];
      for (let at = 0; at < stream.length; ) {
        const size = 1 + random(most);
        got.push(...decoder.push(stream.subarray(at, at + size)));
        at += size;
      }
      expect(got.length).toBe(sent.length);
      expect(got.every((frame, index) => Buffer.from(frame.payload).equals(sent[index]!.payload))).toBe(true);
      expect(got.map((frame) => [frame.type, frame.channel])).toEqual(sent.map((frame) => [frame.type, frame.channel]));
    }
  });

  it('above the limit are refused by their header', () => {
    const header = Buffer.alloc(9);
    header.writeUInt32LE(MAX_PAYLOAD + 1, 0);
    expect(() => new FrameDecoder().push(header)).toThrow(/bytes/);
    expect(() => encodeFrame(1, 1, Buffer.alloc(MAX_PAYLOAD + 1))).toThrow(/bytes/);
  });

  it('of noise throw nothing but that', () => {
    for (let round = 0; round < 300; round++) {
      const decoder = new FrameDecoder();
      const noise = Buffer.from(Array.from({ length: 200 }, () => random(4)));
      try {
        decoder.push(noise);
      } catch (error) {
        expect(error).toMatchObject({ code: 'FRAME_TOO_LONG' });
      }
    }
  });
});

describe('the client of a loader', () => {
  function peer() {
    const [ours, theirs] = duplexPair();
    const decoder = new FrameDecoder();
    const received: { type: number; channel: number; payload: string }[] = [];
    theirs.on('data', (bytes: Buffer) => {
      for (const { type, channel, payload } of decoder.push(bytes)) {
        received.push({ type, channel, payload: Buffer.from(payload).toString() });
      }
    });
    const answer = (type: number, channel: number, value: unknown) =>
      theirs.write(encodeFrame(type, channel, Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))));
    return { client: new LoaderClient(ours), theirs, received, answer };
  }

  it('matches answers with requests and hands output on', async () => {
    const { client, received, answer } = peer();
    const output: string[] = [];
    const first = client.call<number>('one', { a: 1 }, (stream, bytes) => output.push(`${stream}:${bytes}`));
    const second = client.call('two');
    first.write(Buffer.from('in'));
    first.end();
    answer(RESULT, 0, {});
    await client.greeted;
    answer(STDOUT, first.channel, 'out');
    answer(FAILURE, second.channel, { message: 'No such thing.' });
    answer(RESULT, 99, 'null');
    answer(RESULT, first.channel, 7);
    await expect(second.result).rejects.toMatchObject({
      code: 'LAB_REQUEST',
      message: expect.stringContaining('No such'),
    });
    expect(await first.result).toBe(7);
    expect(output).toEqual(['stdout:out']);
    expect(received.map(({ type, channel }) => [type, channel])).toEqual([
      [REQUEST, first.channel],
      [REQUEST, second.channel],
      [STDIN, first.channel],
      [STDIN, first.channel],
    ]);
    expect(JSON.parse(received[0]!.payload)).toEqual({ op: 'one', a: 1 });
  });

  it('keeps a lab awake that answers, and does not pile up for one that does not', async () => {
    vi.useFakeTimers();
    try {
      const { client, theirs, received, answer } = peer();
      const sleep = client.keepAwake();
      await vi.advanceTimersByTimeAsync(60_000);
      const waiting = received.length;
      expect(waiting).toBeGreaterThan(1);
      expect(waiting).toBeLessThan(20);
      expect(JSON.parse(received[0]!.payload)).toEqual({ op: 'ping' });
      for (const { channel } of [...received]) answer(RESULT, channel, {});
      await vi.advanceTimersByTimeAsync(1000);
      expect(received.length).toBeGreaterThan(waiting);
      sleep();
      const sent = received.length;
      await vi.advanceTimersByTimeAsync(60_000);
      expect(received.length).toBe(sent);
      theirs.destroy();
    } finally {
      vi.useRealTimers();
    }
  });

  it('fails everything when the stream is nonsense, and when it is told so', async () => {
    const { client, theirs } = peer();
    const call = client.call('one');
    theirs.write(Buffer.alloc(16, 0xff));
    await expect(call.result).rejects.toMatchObject({ code: 'FRAME_TOO_LONG' });
    await expect(client.call('two').result).rejects.toMatchObject({ code: 'FRAME_TOO_LONG' });
  });
});

describe('the client of QMP', () => {
  it('negotiates, matches answers that come in pieces, and passes errors on', async () => {
    const [ours, theirs] = duplexPair();
    const asked: string[] = [];
    theirs.on('data', (bytes: Buffer) => {
      for (const line of bytes.toString().trim().split('\n')) {
        const { execute, id } = JSON.parse(line) as { execute: string; id: number };
        asked.push(execute);
        const answer =
          execute === 'bad' ? { error: { class: 'GenericError', desc: 'No way' }, id } : { return: { id }, id };
        const text = `{"event":"STOP"}\r\n${JSON.stringify(answer)}\r\n`;
        theirs.write(text.slice(0, 20));
        theirs.write(text.slice(20));
      }
    });
    theirs.write('{"QMP":{}}\r\n');
    const client = new QmpClient(ours);
    await client.start();
    expect(await client.command('query-status')).toEqual({ id: 2 });
    await expect(client.command('bad')).rejects.toThrow('QEMU refused a command: No way');
    client.fail(new Error('gone'));
    await expect(client.command('query-status')).rejects.toThrow('gone');
    expect(asked).toEqual(['qmp_capabilities', 'query-status', 'bad']);
  });
});
