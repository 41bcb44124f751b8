/** What several commands that run machines share. */
import { Option } from 'commander';
import type { RunOptions } from './run.ts';

export const onOption = () =>
  new Option('--on <place>', "where machines run: this host's KVM, the lab, or what works")
    .choices(['auto', 'kvm', 'lab'])
    .default('auto');

export const RUN_DEFAULTS: RunOptions = {
  on: 'auto',
  initrd: [],
  serial: [],
  numa: [],
  fwCfg: [],
  disk: [],
  device: [],
  net: [],
  rtc: true,
  pvpanic: true,
  reboot: true,
  prefix: '^A',
};
