import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import { TtyStdinEncoder, ttyStdinTransform } from '../../../src/lab/tty_stdin.ts';

/** What a reader gets from Linux' n_tty in the mode that init sets: reads of one line each, '' is end of file. */
function canonicalReads(bytes: Uint8Array): Buffer[] {
  const reads: Buffer[] = [];
  let line: number[] = [];
  let literal = false;
  for (const byte of bytes) {
    if (!literal && byte === 0x16) {
      literal = true;
      continue;
    }
    const end = !literal && (byte === 0x0a || byte === 0x04);
    if (byte !== 0x04 || literal) line.push(byte);
    literal = false;
    if (line.length > 4095) throw new Error('The line buffer of the terminal overflowed.');
    if (end) {
      reads.push(Buffer.from(line));
      line = [];
    }
  }
  if (line.length > 0) throw new Error('Bytes stay behind in the terminal.');
  return reads;
}

function pseudoRandom(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed;
  for (let index = 0; index < length; index++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[index] = state >>> 24;
  }
  return bytes;
}

/** Every byte, runs of the special ones, lines of critical lengths and noise. */
const samples: Record<string, Buffer> = {
  nothing: Buffer.alloc(0),
  text: Buffer.from('one\ntwo\n\nthree without an end'),
  'every byte': Buffer.from(Array.from({ length: 256 }, (_, index) => index)),
  'special runs': Buffer.from([4, 4, 0x16, 0x16, 4, 0x0a, 4, 0x0a, 0x16, 0x0a, 0x0a, 0x7f, 0x15, 3]),
  'critical lengths': Buffer.concat(
    [999, 1000, 1001, 2000, 4095, 4096, 9000].map((n) => Buffer.from(`${'x'.repeat(n)}\n`)),
  ),
  noise: pseudoRandom(20_000, 7),
};

describe('standard input over a terminal', () => {
  for (const [name, sample] of Object.entries(samples)) {
    it(`carries ${name} through a canonical terminal, in pieces of any size`, () => {
      for (const size of [1, 3, 999, 1000, 1001, 65536]) {
        const encoder = new TtyStdinEncoder();
        const sent: Buffer[] = [];
        for (let at = 0; at < sample.length; at += size) sent.push(encoder.encode(sample.subarray(at, at + size)));
        const beforeEnd = canonicalReads(Buffer.concat(sent));
        expect(beforeEnd.every((read) => read.length > 0)).toBe(true);
        expect(Buffer.concat(beforeEnd).equals(sample)).toBe(true);
        const reads = canonicalReads(Buffer.concat([...sent, encoder.end()]));
        expect(reads.slice(-2).map((read) => read.length)).toEqual([0, 0]);
      }
    });
  }

  it('ends as a stream ends', async () => {
    const stream = ttyStdinTransform();
    stream.end(Buffer.from('ab'));
    expect(Buffer.concat(await stream.toArray())).toEqual(Buffer.from([0x61, 0x62, 4, 4, 4]));
  });
});

/** A Linux pseudo terminal in the mode of init.sh; it sends input on in hexadecimal, with `eof` at the end. */
const PTY = `
import os, pty, sys, termios, threading
master, slave = pty.openpty()
mode = termios.tcgetattr(slave)
mode[0] &= ~(termios.ICRNL | termios.IXON); mode[1] &= ~termios.OPOST
mode[3] = (mode[3] | termios.ICANON | termios.IEXTEN) & ~(termios.ECHO | termios.ISIG)
for key in (termios.VERASE, termios.VKILL, termios.VWERASE, termios.VREPRINT, termios.VEOL, termios.VEOL2):
    mode[6][key] = b'\\0'
mode[6][termios.VLNEXT] = b'\\x16'; mode[6][termios.VEOF] = b'\\x04'
termios.tcsetattr(slave, termios.TCSANOW, mode)
def feed():
    while True:
        data = sys.stdin.buffer.read1(512)
        if not data: break
        while data: data = data[os.write(master, data):]
threading.Thread(target=feed, daemon=True).start()
while True:
    data = os.read(slave, 4096)
    if not data: break
    sys.stdout.write(data.hex())
print('eof', flush=True)
os._exit(0)
`;

describe('the kernel agrees', () => {
  it('carries all samples through a real terminal', async ({ skip }) => {
    const probe = spawn('python3', ['-c', 'pass'], { stdio: 'ignore' });
    const [status] = await once(probe, 'exit').catch(() => [1]);
    if (status !== 0) skip('python3 is not installed: it makes the pseudo terminal.');
    const sample = Buffer.concat(Object.values(samples));
    const child = spawn('python3', ['-c', PTY], { stdio: ['pipe', 'pipe', 'inherit'] });
    const stream = ttyStdinTransform();
    stream.pipe(child.stdin);
    stream.end(sample);
    const output = Buffer.concat(await child.stdout.toArray())
      .toString()
      .trim();
    expect(output.endsWith('eof')).toBe(true);
    expect(Buffer.from(output.slice(0, -3), 'hex').equals(sample)).toBe(true);
  });
});
