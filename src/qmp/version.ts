/**
 * What clients that choose by QEMU's version may take for granted: the protocol, its types and names are those of QEMU
 * 7.2. Which commands there are is told by `query-qmp-schema`.
 */
export const VERSION = { qemu: { major: 7, minor: 2, micro: 0 }, package: 'NEMU 0.1.0' } as const;
