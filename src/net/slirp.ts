import koffi from 'koffi';
import { Arena } from '../ffi/arena.ts';
import { check, close, raw } from '../ffi/libc.ts';
import {
  EPOLL_CTL_ADD,
  EPOLL_CTL_DEL,
  EPOLL_CTL_MOD,
  EPOLLERR,
  EPOLLHUP,
  EPOLLIN,
  EPOLLOUT,
  EPOLLPRI,
  epoll_event,
} from '../ffi/os.ts';
import { MAX_FRAME, type NetBackend, type NetClock, NetError, type NetTimer, type Poller } from './backend.ts';
import {
  SLIRP_CONFIG_VERSION,
  SLIRP_POLL_ERR,
  SLIRP_POLL_HUP,
  SLIRP_POLL_IN,
  SLIRP_POLL_OUT,
  SLIRP_POLL_PRI,
  type SlirpLibrary,
  slirpLibrary,
} from './slirp_library.ts';
import { DEFAULT_USER_NET, parseIpv4, parseNetwork } from './user_net.ts';

const EPOLL_CLOEXEC = 0o2000000;
const MAX_EVENTS = 64;
/** Frames that wait for a guest which takes none; more are dropped, as on any network. */
const MAX_WAITING_FRAMES = 256;
const MS = 1_000_000n;
const FOREVER_MS = 0xffffffff;

/** A host port whose connections go to a port of the guest. */
export interface HostForward {
  readonly protocol: 'tcp' | 'udp';
  /** IPv4 address of the host to listen at. */
  readonly hostAddress: string;
  readonly hostPort: number;
  /** IPv4 address of the guest; by default the first that DHCP gives. */
  readonly guestAddress?: string;
  readonly guestPort: number;
}

export interface UserNetOptions {
  /** IPv4 network as `10.0.2.0/24`: the host is .2, the name server .3, the first guest .15. */
  readonly net?: string;
  readonly hostname?: string;
  /** Nothing but what is forwarded gets in or out. */
  readonly restrict?: boolean;
  readonly ipv6?: boolean;
  readonly hostForwards?: readonly HostForward[];
}

/**
 * User networking: a network of the guest's own behind this process, with DHCP, DNS and address translation by
 * libslirp. Needs no privileges. It lives in the thread that made it, whose loop `poller` and `clock` are.
 */
export class SlirpBackend implements NetBackend {
  readonly name = 'user';
  readonly headerSize = 0;
  readonly offloads = 0;
  onReadable: (() => void) | undefined;
  onWritable: (() => void) | undefined;
  readonly lost = { rxDropped: 0, txErrors: 0 };
  readonly #library: SlirpLibrary;
  readonly #slirp: number;
  readonly #clock: NetClock;
  readonly #poller: Poller;
  readonly #epoll = check(raw.epoll_create1(EPOLL_CLOEXEC), 'epoll_create1', 'EPOLL_CLOEXEC');
  readonly #arena = new Arena(4096);
  readonly #control = this.#arena.struct(epoll_event);
  readonly #ready = this.#arena.alloc(epoll_event.size * MAX_EVENTS);
  readonly #callbacks: ReturnType<typeof koffi.register>[] = [];
  readonly #timers = new Map<number, { id: number; cbOpaque: number; timer: NetTimer }>();
  #nextTimer = 1;
  readonly #pollTimer: NetTimer;
  readonly #timeout = new Uint32Array(1);
  /** What slirp waits for, in the order that it asked: its index is the number that slirp knows. */
  #asked: { fd: number; events: number }[] = [];
  /** What epoll has been told. */
  readonly #watched = new Map<number, number>();
  #happened = new Map<number, number>();
  readonly #forwards: HostForward[] = [];
  readonly #firstGuest: number;
  readonly #frames: Uint8Array[] = [];
  #drained = true;
  readonly #addPoll;
  readonly #getREvents;
  #closed = false;

  /** @throws NetError when libslirp is missing, or a port cannot be forwarded. */
  constructor(options: UserNetOptions, poller: Poller, clock: NetClock) {
    this.#library = slirpLibrary();
    this.#poller = poller;
    this.#clock = clock;
    const { network, mask } = parseNetwork(options.net ?? DEFAULT_USER_NET);
    const register = (callback: (...args: never[]) => unknown, type: string) => {
      const registered = koffi.register(callback as (...args: unknown[]) => unknown, koffi.pointer(type));
      this.#callbacks.push(registered);
      return registered;
    };
    this.#addPoll = register((fd: number, events: number) => this.#asked.push({ fd, events }) - 1, 'SlirpAddPollCb');
    this.#getREvents = register(
      (index: number) => this.#happened.get(this.#asked[index]?.fd) ?? 0,
      'SlirpGetREventsCb',
    );
    // slirp keeps the pointer to this structure.
    const callbacks = koffi.alloc('SlirpCb', 1);
    koffi.encode(callbacks, 'SlirpCb', {
      send_packet: register((buffer: unknown, length: number) => this.#received(buffer, length), 'SlirpWriteCb'),
      guest_error: register(() => {}, 'SlirpErrorCb'),
      clock_get_ns: register(() => clock.now(), 'SlirpClockCb'),
      timer_new: null,
      timer_free: register((timer: number) => this.#freeTimer(timer), 'SlirpTimerFreeCb'),
      timer_mod: register(
        (timer: number, expire: number | bigint) => this.#timers.get(Number(timer))?.timer.armAt(BigInt(expire) * MS),
        'SlirpTimerModCb',
      ),
      register_poll_fd: register(() => {}, 'SlirpFdCb'),
      unregister_poll_fd: register((fd: number) => this.#unwatch(fd), 'SlirpFdCb'),
      notify: register(() => {}, 'SlirpNotifyCb'),
      init_completed: register(() => {}, 'SlirpInitCb'),
      timer_new_opaque: register(
        (id: number, cbOpaque: number) => this.#newTimer(id, Number(cbOpaque)),
        'SlirpTimerNewCb',
      ),
    });
    this.#pollTimer = clock.timer(() => this.#turn());
    const host = (last: number) => networkOrder(network + last);
    this.#slirp = this.#library.slirp_new(
      {
        version: SLIRP_CONFIG_VERSION,
        restricted: options.restrict ? 1 : 0,
        in_enabled: true,
        vnetwork: networkOrder(network),
        vnetmask: networkOrder(mask),
        vhost: host(2),
        in6_enabled: options.ipv6 ?? true,
        vprefix_addr6: ipv6('fec0::'),
        vprefix_len: 64,
        vhost6: ipv6('fec0::2'),
        vhostname: options.hostname ?? null,
        tftp_server_name: null,
        tftp_path: null,
        bootfile: null,
        vdhcp_start: host(15),
        vnameserver: host(3),
        vnameserver6: ipv6('fec0::3'),
        vdnssearch: null,
        vdomainname: null,
        if_mtu: 0,
        if_mru: 0,
        disable_host_loopback: false,
        enable_emu: false,
        outbound_addr: null,
        outbound_addr6: null,
        disable_dns: false,
        disable_dhcp: false,
      },
      callbacks,
      0,
    );
    if (!this.#slirp) throw new NetError('libslirp did not start.', 'Check net=: it has to be an IPv4 network.');
    this.#firstGuest = network + 15;
    this.#poller.add(this.#epoll, () => this.#turn());
    try {
      for (const forward of options.hostForwards ?? []) this.addForward(forward);
    } catch (error) {
      this.close();
      throw error;
    }
    this.#refill();
  }

  /** Ports of the host that lead to the guest. */
  get forwards(): readonly HostForward[] {
    return this.#forwards;
  }

  /** @throws NetError when the host's port cannot be had. */
  addForward(forward: HostForward): void {
    const guest = forward.guestAddress === undefined ? this.#firstGuest : parseIpv4(forward.guestAddress);
    const failed = this.#library.slirp_add_hostfwd(
      this.#slirp,
      forward.protocol === 'udp' ? 1 : 0,
      networkOrder(parseIpv4(forward.hostAddress)),
      forward.hostPort,
      networkOrder(guest),
      forward.guestPort,
    );
    if (failed) {
      throw new NetError(
        `The host's ${forward.protocol} port ${forward.hostAddress}:${forward.hostPort} cannot be forwarded.`,
        'Another program may listen there; ports below 1024 need privileges. Use another port in hostfwd=.',
      );
    }
    this.#forwards.push(forward);
    this.#refill();
  }

  /** Listens no more; connections that there are stay. @returns what the forwarding was, undefined for none. */
  removeForward(listener: Listener): HostForward | undefined {
    const index = this.#forwards.findIndex((each) => listensAt(each, listener));
    if (index < 0) return undefined;
    this.#library.slirp_remove_hostfwd(
      this.#slirp,
      listener.protocol === 'udp' ? 1 : 0,
      networkOrder(parseIpv4(listener.hostAddress)),
      listener.hostPort,
    );
    this.#refill();
    return this.#forwards.splice(index, 1)[0];
  }

  send(frame: Uint8Array): boolean {
    this.#library.slirp_input(this.#slirp, frame, frame.length);
    this.#refill();
    return true;
  }

  receive(into: Uint8Array): number {
    const frame = this.#frames.shift();
    if (frame === undefined) {
      this.#drained = true;
      return 0;
    }
    const length = Math.min(frame.length, into.length);
    into.set(frame.subarray(0, length));
    return length;
  }

  setOffloads(): void {}

  /** slirp has a frame for the guest. */
  #received(buffer: unknown, length: number): number {
    if (this.#frames.length < MAX_WAITING_FRAMES && length <= MAX_FRAME) {
      this.#frames.push(koffi.decode(buffer, 'uint8_t', length) as Uint8Array);
    } else this.lost.rxDropped++;
    return length;
  }

  #tellReadable(): void {
    if (this.#frames.length === 0 || !this.#drained) return;
    this.#drained = false;
    this.onReadable?.();
  }

  #newTimer(id: number, cbOpaque: number): number {
    const number = this.#nextTimer++;
    const timer = this.#clock.timer(() => {
      this.#library.slirp_handle_timer(this.#slirp, id, cbOpaque);
      this.#refill();
    });
    this.#timers.set(number, { id, cbOpaque, timer });
    return number;
  }

  #freeTimer(number: number): void {
    this.#timers.get(Number(number))?.timer.cancel();
    this.#timers.delete(Number(number));
  }

  /** Something happened on one of slirp's sockets, or its time is up. */
  #turn(): void {
    if (this.#closed) return;
    const count = raw.epoll_wait(this.#epoll, this.#ready.address, MAX_EVENTS, 0);
    this.#happened = new Map();
    for (let i = 0; i < count; i++) {
      const at = i * epoll_event.size;
      const fd = this.#ready.view.getInt32(at + epoll_event.offsets.fd, true);
      this.#happened.set(fd, fromEpoll(this.#ready.view.getUint32(at + epoll_event.offsets.events, true)));
    }
    this.#library.slirp_pollfds_poll(this.#slirp, count < 0 ? 1 : 0, this.#getREvents, 0);
    this.#refill();
  }

  /** Asks slirp what it waits for now, and tells epoll what has changed. */
  #refill(): void {
    if (this.#closed) return;
    this.#asked = [];
    this.#timeout[0] = FOREVER_MS;
    this.#library.slirp_pollfds_fill(this.#slirp, this.#timeout, this.#addPoll, 0);
    const wanted = new Map<number, number>();
    for (const { fd, events } of this.#asked) wanted.set(fd, (wanted.get(fd) ?? 0) | toEpoll(events));
    for (const fd of [...this.#watched.keys()]) if (!wanted.has(fd)) this.#unwatch(fd);
    for (const [fd, events] of wanted) {
      const before = this.#watched.get(fd);
      if (before === events) continue;
      this.#control.fields.events = events;
      this.#control.fields.fd = fd;
      // A descriptor that was closed and opened again under the same number is unknown to epoll.
      if (before === undefined || raw.epoll_ctl(this.#epoll, EPOLL_CTL_MOD, fd, this.#control.address) < 0) {
        raw.epoll_ctl(this.#epoll, EPOLL_CTL_ADD, fd, this.#control.address);
      }
      this.#watched.set(fd, events);
    }
    if (this.#timeout[0] !== FOREVER_MS) this.#pollTimer.armAt(this.#clock.now() + BigInt(this.#timeout[0]) * MS);
    this.#tellReadable();
  }

  #unwatch(fd: number): void {
    if (!this.#watched.delete(fd)) return;
    raw.epoll_ctl(this.#epoll, EPOLL_CTL_DEL, fd, 0);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#poller.remove(this.#epoll);
    this.#pollTimer.cancel();
    if (this.#slirp) this.#library.slirp_cleanup(this.#slirp);
    for (const { timer } of this.#timers.values()) timer.cancel();
    for (const callback of this.#callbacks) koffi.unregister(callback);
    close(this.#epoll);
    this.#arena.free();
  }
}

type Listener = Pick<HostForward, 'protocol' | 'hostAddress' | 'hostPort'>;

/** Whether a forwarding listens just there. */
export const listensAt = (forward: Listener, { protocol, hostAddress, hostPort }: Listener): boolean =>
  forward.protocol === protocol && forward.hostAddress === hostAddress && forward.hostPort === hostPort;

const POLL_TO_EPOLL = [
  [SLIRP_POLL_IN, EPOLLIN],
  [SLIRP_POLL_OUT, EPOLLOUT],
  [SLIRP_POLL_PRI, EPOLLPRI],
  [SLIRP_POLL_ERR, EPOLLERR],
  [SLIRP_POLL_HUP, EPOLLHUP],
] as const;
const toEpoll = (events: number) => POLL_TO_EPOLL.reduce((sum, [poll, epoll]) => sum | (events & poll ? epoll : 0), 0);
const fromEpoll = (events: number) =>
  POLL_TO_EPOLL.reduce((sum, [poll, epoll]) => sum | (events & epoll ? poll : 0), 0);

/** The bytes of an address in network order, read as a little-endian integer. */
const networkOrder = (address: number): number =>
  ((address >>> 24) | ((address >>> 8) & 0xff00) | ((address << 8) & 0xff0000) | (address << 24)) >>> 0;

/** An address of the form `fec0::N`. */
function ipv6(text: string): Uint8Array {
  const [prefix, host] = text.split('::');
  const bytes = new Uint8Array(16);
  bytes[0] = Number.parseInt(prefix.slice(0, 2), 16);
  bytes[1] = Number.parseInt(prefix.slice(2), 16);
  bytes[15] = Number.parseInt(host || '0', 16);
  return bytes;
}
