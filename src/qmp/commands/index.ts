/** Every command of the protocol. */
import type { Command } from '../command.ts';
import { BLOCK } from './block.ts';
import { CHARDEV } from './chardev.ts';
import { CONTROL } from './control.ts';
import { CPUS } from './cpus.ts';
import { DEVICE } from './device.ts';
import { DIRTY_RATE } from './dirty_rate.ts';
import { DUMP } from './dump.ts';
import { MACHINE } from './machine.ts';
import { MEDIUM } from './medium.ts';
import { MEMORY } from './memory.ts';
import { NET } from './net.ts';
import { OBJECT } from './object.ts';
import { PCI } from './pci.ts';
import { PROBE } from './probe.ts';
import { QOM } from './qom.ts';

export const COMMANDS: readonly Command[] = [
  ...[...CONTROL, ...MACHINE, ...CPUS, ...OBJECT, ...MEMORY, ...DUMP, ...DIRTY_RATE, ...DEVICE],
  ...[...BLOCK, ...MEDIUM, ...NET, ...CHARDEV, ...PROBE, ...PCI, ...QOM],
].sort((a, b) => (a.name < b.name ? -1 : 1));
