/** Addresses on a network of user networking, laid out as QEMU does. */
import { NetError } from './backend.ts';

export const DEFAULT_USER_NET = '10.0.2.0/24';

/** What DHCP tells the first guest. @throws NetError */
export function userNetAddresses(net = DEFAULT_USER_NET): { address: string; gateway: string; nameserver: string } {
  const { network, mask } = parseNetwork(net);
  const text = (last: number) => [24, 16, 8, 0].map((shift) => ((network + last) >>> shift) & 0xff).join('.');
  return { address: `${text(15)}/${Math.clz32(~mask)}`, gateway: text(2), nameserver: text(3) };
}

/** An IPv4 address as a number. @throws NetError */
export function parseIpv4(text: string): number {
  const bytes = text.split('.').map(Number);
  if (bytes.length !== 4 || bytes.some((byte) => !Number.isInteger(byte) || byte < 0 || byte > 255)) {
    throw new NetError(`"${text}" is no IPv4 address.`, 'Write it like 10.0.2.15.');
  }
  return bytes.reduce((sum, byte) => sum * 256 + byte, 0);
}

/** @throws NetError */
export function parseNetwork(text: string): { network: number; mask: number } {
  const [address, bits = '24'] = text.split('/');
  const length = Number(bits);
  if (!Number.isInteger(length) || length < 8 || length > 28) {
    throw new NetError(`"${text}" is no network for a guest.`, 'Write it like 10.0.2.0/24, with 8 to 28 bits.');
  }
  const mask = (-1 << (32 - length)) >>> 0;
  return { network: (parseIpv4(address) & mask) >>> 0, mask };
}
