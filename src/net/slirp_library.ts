/** libslirp.h (version 4.7, of the package libslirp0) through koffi. Loaded when user networking is first asked for. */
import koffi from 'koffi';
import { NetError } from './backend.ts';

export const SLIRP_POLL_IN = 1 << 0;
export const SLIRP_POLL_OUT = 1 << 1;
export const SLIRP_POLL_PRI = 1 << 2;
export const SLIRP_POLL_ERR = 1 << 3;
export const SLIRP_POLL_HUP = 1 << 4;

/** Configuration version: the first that can hand DHCP and DNS off, and that 4.7 knows. */
export const SLIRP_CONFIG_VERSION = 4;

koffi.struct('SlirpConfig', {
  version: 'uint32_t',
  restricted: 'int',
  in_enabled: 'bool',
  vnetwork: 'uint32_t',
  vnetmask: 'uint32_t',
  vhost: 'uint32_t',
  in6_enabled: 'bool',
  vprefix_addr6: koffi.array('uint8_t', 16),
  vprefix_len: 'uint8_t',
  vhost6: koffi.array('uint8_t', 16),
  vhostname: 'const char *',
  tftp_server_name: 'const char *',
  tftp_path: 'const char *',
  bootfile: 'const char *',
  vdhcp_start: 'uint32_t',
  vnameserver: 'uint32_t',
  vnameserver6: koffi.array('uint8_t', 16),
  vdnssearch: 'void *',
  vdomainname: 'const char *',
  if_mtu: 'size_t',
  if_mru: 'size_t',
  disable_host_loopback: 'bool',
  enable_emu: 'bool',
  outbound_addr: 'void *',
  outbound_addr6: 'void *',
  disable_dns: 'bool',
  disable_dhcp: 'bool',
});

export const SlirpWriteCb = koffi.proto('long SlirpWriteCb(const void *buf, size_t len, uintptr_t opaque)');
export const SlirpErrorCb = koffi.proto('void SlirpErrorCb(const char *msg, uintptr_t opaque)');
export const SlirpClockCb = koffi.proto('int64_t SlirpClockCb(uintptr_t opaque)');
export const SlirpTimerNewCb = koffi.proto('uintptr_t SlirpTimerNewCb(int id, uintptr_t cb_opaque, uintptr_t opaque)');
export const SlirpTimerFreeCb = koffi.proto('void SlirpTimerFreeCb(uintptr_t timer, uintptr_t opaque)');
export const SlirpTimerModCb = koffi.proto('void SlirpTimerModCb(uintptr_t timer, int64_t expire, uintptr_t opaque)');
export const SlirpFdCb = koffi.proto('void SlirpFdCb(int fd, uintptr_t opaque)');
export const SlirpNotifyCb = koffi.proto('void SlirpNotifyCb(uintptr_t opaque)');
export const SlirpInitCb = koffi.proto('void SlirpInitCb(uintptr_t slirp, uintptr_t opaque)');
export const SlirpAddPollCb = koffi.proto('int SlirpAddPollCb(int fd, int events, uintptr_t opaque)');
export const SlirpGetREventsCb = koffi.proto('int SlirpGetREventsCb(int idx, uintptr_t opaque)');

koffi.struct('SlirpCb', {
  send_packet: 'SlirpWriteCb *',
  guest_error: 'SlirpErrorCb *',
  clock_get_ns: 'SlirpClockCb *',
  timer_new: 'void *',
  timer_free: 'SlirpTimerFreeCb *',
  timer_mod: 'SlirpTimerModCb *',
  register_poll_fd: 'SlirpFdCb *',
  unregister_poll_fd: 'SlirpFdCb *',
  notify: 'SlirpNotifyCb *',
  init_completed: 'SlirpInitCb *',
  timer_new_opaque: 'SlirpTimerNewCb *',
});

export interface SlirpLibrary {
  slirp_new(config: object, callbacks: unknown, opaque: number): number;
  slirp_cleanup(slirp: number): void;
  slirp_input(slirp: number, packet: Uint8Array, length: number): void;
  slirp_pollfds_fill(slirp: number, timeout: Uint32Array, addPoll: unknown, opaque: number): void;
  slirp_pollfds_poll(slirp: number, selectError: number, getREvents: unknown, opaque: number): void;
  slirp_handle_timer(slirp: number, id: number, cbOpaque: number): void;
  slirp_add_hostfwd(
    slirp: number,
    isUdp: number,
    hostAddress: number,
    hostPort: number,
    guestAddress: number,
    guestPort: number,
  ): number;
  slirp_remove_hostfwd(slirp: number, isUdp: number, hostAddress: number, hostPort: number): number;
  slirp_version_string(): string;
}

let library: SlirpLibrary | undefined;

/** @throws NetError when the library is not installed. */
export function slirpLibrary(): SlirpLibrary {
  if (library) return library;
  let loaded: ReturnType<typeof koffi.load>;
  try {
    loaded = koffi.load('libslirp.so.0');
  } catch (cause) {
    throw new NetError(
      'User networking needs libslirp, which this machine does not have.',
      'Install it: sudo apt-get install --no-install-recommends libslirp0. Or use --net tap or --net none.',
      cause,
    );
  }
  // in_addr travels like the integer that it holds.
  library = {
    slirp_new: loaded.func('uintptr_t slirp_new(const SlirpConfig *, const SlirpCb *, uintptr_t)'),
    slirp_cleanup: loaded.func('void slirp_cleanup(uintptr_t)'),
    slirp_input: loaded.func('void slirp_input(uintptr_t, const uint8_t *, int)'),
    slirp_pollfds_fill: loaded.func('void slirp_pollfds_fill(uintptr_t, uint32_t *, SlirpAddPollCb *, uintptr_t)'),
    slirp_pollfds_poll: loaded.func('void slirp_pollfds_poll(uintptr_t, int, SlirpGetREventsCb *, uintptr_t)'),
    slirp_handle_timer: loaded.func('void slirp_handle_timer(uintptr_t, int, uintptr_t)'),
    slirp_add_hostfwd: loaded.func('int slirp_add_hostfwd(uintptr_t, int, uint32_t, int, uint32_t, int)'),
    slirp_remove_hostfwd: loaded.func('int slirp_remove_hostfwd(uintptr_t, int, uint32_t, int)'),
    slirp_version_string: loaded.func('const char *slirp_version_string()'),
  } as unknown as SlirpLibrary;
  return library;
}
