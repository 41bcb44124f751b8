/** linux/if_tun.h and what of linux/if.h it needs. */
import { IOW } from './ioctl.ts';
import { array, struct } from './struct.ts';

export const IFNAMSIZ = 16;
export const IFF_TAP = 0x0002;
export const IFF_NO_PI = 0x1000;
export const IFF_VNET_HDR = 0x4000;
export const IFF_MULTI_QUEUE = 0x0100;

/** The header's union: of its members only the flags are used here. */
export const ifreq = struct('ifreq', { ifr_name: array('u8', IFNAMSIZ), ifr_flags: 'u16', pad: array('u8', 22) });

const TUN = 0x54;
export const TUNSETIFF = IOW(TUN, 202, 4);
export const TUNSETOFFLOAD = IOW(TUN, 208, 4);
export const TUNSETVNETHDRSZ = IOW(TUN, 216, 4);

export const tunLayouts = [ifreq];
export const tunNumbers = {
  IFNAMSIZ,
  IFF_TAP,
  IFF_NO_PI,
  IFF_VNET_HDR,
  IFF_MULTI_QUEUE,
  TUNSETIFF,
  TUNSETOFFLOAD,
  TUNSETVNETHDRSZ,
};
