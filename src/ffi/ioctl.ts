/** ioctl request numbers, as asm-generic/ioctl.h composes them. */
const NONE = 0;
const WRITE = 1;
const READ = 2;

const ioc = (direction: number, type: number, nr: number, size: number) =>
  ((direction << 30) | (size << 16) | (type << 8) | nr) >>> 0;

export const IO = (type: number, nr: number): number => ioc(NONE, type, nr, 0);
export const IOR = (type: number, nr: number, size: number): number => ioc(READ, type, nr, size);
export const IOW = (type: number, nr: number, size: number): number => ioc(WRITE, type, nr, size);
export const IOWR = (type: number, nr: number, size: number): number => ioc(READ | WRITE, type, nr, size);
