/**
 * The lab's own process: started before the lab is saved, so that it is there at once when a lab is restored.
 * It serves one virtio-serial port, `org.nemu.loader`, in the frames of src/client/frames.ts; the channel is
 * the number that the host gave the request. `org.nemu.engine` stays closed until a bundle opens it.
 */
import { spawn } from 'node:child_process';
import {
  closeSync,
  copyFileSync,
  createReadStream,
  createWriteStream,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { Duplex } from 'node:stream';
import { pathToFileURL } from 'node:url';
import koffi from 'koffi';

/** Frame types; src/lab/loader_protocol.ts has the same. */
const REQUEST = 1;
const STDIN = 2;
const RESULT = 16;
const FAILURE = 17;
const STDOUT = 18;
const STDERR = 19;

const HEADER_SIZE = 9;
const PAYLOAD_MAX = 1 << 20;
const CHUNK = 64 << 10;

const libc = koffi.load('libc.so.6');
const mount = libc.func(
  'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
);
const clockSettime = libc.func('int clock_settime(int clock, const int64_t *time)');

const MS_RDONLY = 1;
const MS_BIND = 4096;
const MS_REC = 16384;
const CLOCK_REALTIME = 0;

/** The kernel's name of a port; a console port (hvc) has none. */
function portName(port) {
  const file = `/sys/class/virtio-ports/${port}/name`;
  return existsSync(file) ? readFileSync(file, 'utf8').trim() : undefined;
}

function findPort(name) {
  const entry = readdirSync('/sys/class/virtio-ports').find((port) => portName(port) === name);
  if (!entry) throw new Error(`The lab has no virtio-serial port named ${name}.`);
  return `/dev/${entry}`;
}

const loaderPort = openSync(findPort('org.nemu.loader'), 'r+');
const enginePort = findPort('org.nemu.engine');

function send(type, channel, payload = Buffer.alloc(0)) {
  const frame = Buffer.alloc(HEADER_SIZE + payload.length);
  frame.writeUInt32LE(payload.length, 0);
  frame.writeUInt8(type, 4);
  frame.writeUInt32LE(channel, 5);
  frame.set(payload, HEADER_SIZE);
  for (let at = 0; at < frame.length; ) at += writeSync(loaderPort, frame, at);
}

function sendChunks(type, channel, bytes) {
  for (let at = 0; at < bytes.length; at += CHUNK) send(type, channel, bytes.subarray(at, at + CHUNK));
}

function sendJson(type, channel, value) {
  send(type, channel, Buffer.from(JSON.stringify(value ?? null)));
}

function check(result, what) {
  if (result !== 0) throw new Error(`${what} failed with errno ${koffi.errno()}.`);
}

/** Programs started by `exec`, and uploads under way, by channel. */
const children = new Map();
const uploads = new Map();
let bundle;
let loads = 0;

const operations = {
  ping: () => ({ node: process.version, pid: process.pid }),

  /** What a restored lab lacks: the right time, and the host's files (a mounted 9p would block saving). */
  wake({ milliseconds, host }) {
    const time = BigInt64Array.of(BigInt(Math.floor(milliseconds / 1000)), BigInt(milliseconds % 1000) * 1_000_000n);
    check(clockSettime(CLOCK_REALTIME, time), 'clock_settime');
    if (host) {
      const options = 'trans=virtio,version=9p2000.L,msize=512000,cache=loose';
      check(mount('host', '/host', '9p', MS_RDONLY, options), 'Mounting the host over 9p');
    }
    return operations.ping();
  },

  /** The host's files with a writable layer above them, as a root that the host's programs run in. */
  hostRoot() {
    check(mount('tmpfs', '/overlay', 'tmpfs', 0, 'mode=0755'), 'Mounting /overlay');
    mkdirSync('/overlay/upper');
    mkdirSync('/overlay/work');
    const options = 'lowerdir=/host,upperdir=/overlay/upper,workdir=/overlay/work';
    check(mount('overlay', '/hostroot', 'overlay', 0, options), 'Mounting /hostroot');
    for (const name of ['proc', 'sys', 'dev', 'run']) {
      mkdirSync(`/hostroot/${name}`, { recursive: true });
      check(mount(`/${name}`, `/hostroot/${name}`, null, MS_BIND | MS_REC, null), `Binding /hostroot/${name}`);
    }
  },

  exec({ argv, env, cwd }, channel) {
    return new Promise((resolve, reject) => {
      const child = spawn(argv[0], argv.slice(1), {
        cwd,
        env: { ...process.env, ...env },
        stdio: ['pipe', 'pipe', 'pipe'],
      });
      children.set(channel, child);
      child.stdout.on('data', (bytes) => sendChunks(STDOUT, channel, bytes));
      child.stderr.on('data', (bytes) => sendChunks(STDERR, channel, bytes));
      // A program that ends without reading its input: its status tells the rest.
      child.stdin.on('error', () => {});
      child.on('error', reject);
      child.on('close', (code, signal) => resolve({ status: code, signal }));
    }).finally(() => children.delete(channel));
  },

  signal({ channel, signal }) {
    children.get(channel)?.kill(signal);
  },

  /** The content comes as STDIN frames on the same channel, an empty one last. */
  put({ path, mode }, channel) {
    mkdirSync(dirname(path), { recursive: true });
    rmSync(path, { force: true });
    const file = openSync(path, 'wx', mode);
    return new Promise((resolve) => uploads.set(channel, { file, resolve }));
  },

  shell({ rows, columns }) {
    // The terminal forgets its size when nobody has it open.
    const size = `rows ${Number(rows)} columns ${Number(columns)}`;
    const script = `exec <>/dev/hvc0 >/dev/null 2>&0; stty ${size}; exec setsid -c sh -i`;
    writeFileSync('/run/shellrc', 'unset ENV\nexec >&0\n');
    return new Promise((resolve, reject) => {
      const child = spawn('/bin/sh', ['-c', script], {
        cwd: '/root',
        stdio: 'ignore',
        env: { ...process.env, ENV: '/run/shellrc' },
      });
      child.on('error', reject);
      child.on('close', (code) => resolve({ status: code }));
    });
  },

  resize({ rows, columns }) {
    return new Promise((resolve, reject) => {
      const child = spawn('/bin/stty', ['-F', '/dev/hvc0', 'rows', String(rows), 'columns', String(columns)], {
        stdio: 'ignore',
      });
      child.on('error', reject);
      child.on('close', () => resolve());
    });
  },

  /**
   * Loads the engine. `prepare` runs before a warm image is saved: it may start threads and compile.
   * `sources` are files of the host: copying them over 9p is faster than sending them through the port.
   */
  async load({ path, sources = [] }) {
    for (const source of sources) copyFileSync(source, join(dirname(path), basename(source)));
    loads += 1;
    bundle = await import(`${pathToFileURL(path).href}?${loads}`);
    await bundle.prepare?.();
  },

  /** Runs a guest of these files before a warm image is saved, so that the engine's code is compiled in it. */
  async rehearse(files) {
    await bundle.rehearse?.(files);
  },

  async start({ options }) {
    if (!bundle) throw new Error('No engine bundle was loaded into the lab.');
    await bundle.start({ portPath: enginePort, open: openEnginePort, options });
  },
};

/** The engine's port as a stream, for a bundle that does not poll it in a thread of its own. */
function openEnginePort() {
  const fd = openSync(enginePort, 'r+');
  const readable = createReadStream(null, { fd, highWaterMark: CHUNK, autoClose: false });
  const writable = createWriteStream(null, { fd, autoClose: false });
  return Duplex.from({ readable, writable });
}

async function serve(request, channel) {
  try {
    const operation = operations[request.op];
    if (!operation) throw new Error(`The lab's loader has no operation "${request.op}".`);
    sendJson(RESULT, channel, await operation(request, channel));
  } catch (error) {
    sendJson(FAILURE, channel, { message: error.message, stack: error.stack });
  }
}

function receiveBytes(channel, payload) {
  const upload = uploads.get(channel);
  if (upload) {
    for (let at = 0; at < payload.length; ) at += writeSync(upload.file, payload, at);
    if (payload.length === 0) {
      closeSync(upload.file);
      uploads.delete(channel);
      upload.resolve();
    }
    return;
  }
  const input = children.get(channel)?.stdin;
  if (payload.length === 0) input?.end();
  else input?.write(payload);
}

let buffered = Buffer.alloc(0);
function receive(bytes) {
  buffered = buffered.length === 0 ? bytes : Buffer.concat([buffered, bytes]);
  while (buffered.length >= HEADER_SIZE) {
    const length = buffered.readUInt32LE(0);
    if (length > PAYLOAD_MAX) throw new Error(`The host sent a message of ${length} bytes.`);
    if (buffered.length < HEADER_SIZE + length) return;
    const type = buffered.readUInt8(4);
    const channel = buffered.readUInt32LE(5);
    const payload = buffered.subarray(HEADER_SIZE, HEADER_SIZE + length);
    buffered = buffered.subarray(HEADER_SIZE + length);
    if (type === REQUEST) serve(JSON.parse(payload.toString('utf8')), channel);
    else if (type === STDIN) receiveBytes(channel, payload);
  }
}

// Starting a program once now has the code for it compiled in every restored lab.
await operations.resize({ rows: 24, columns: 80 });
createReadStream(null, { fd: loaderPort, highWaterMark: CHUNK, autoClose: false })
  .on('data', receive)
  .on('end', () => process.exit(1));
sendJson(RESULT, 0, operations.ping());
