/** What several commands that run machines share. */
import { Option } from 'commander';
import type { MachineInput } from '../client/description.ts';
import type { PlaceChoice } from './place.ts';

/** Options of `nemu run` as commander gives them. */
export interface RunOptions {
  on: PlaceChoice;
  config?: string;
  machine?: MachineInput['machine'];
  initrd: string[];
  append?: string;
  cpus?: string;
  memory?: string;
  pin?: string;
  dimm: string[];
  nvdimm: string[];
  nvdimmPersistence?: NonNullable<MachineInput['nvdimmPersistence']>;
  numa: string[];
  name?: string;
  serial: string[];
  fwCfg: string[];
  root?: string;
  disk: string[];
  net: string[];
  rng?: boolean;
  device: string[];
  pcie?: string;
  debugExit?: boolean;
  i8042?: boolean;
  hpet?: boolean;
  rtc: boolean;
  pvpanic: boolean;
  reboot: boolean;
  control?: string;
  qmp?: string;
  gdb?: string;
  /** `--gdb 1234`, as QEMU has it. */
  s?: boolean;
  log?: string;
  record?: string;
  detach?: boolean;
  timeout?: string;
  json?: string | true;
  dryRun?: boolean;
  prefix: string;
  verbose?: boolean;
  /** Code to run with the machine in scope, or a file of it. */
  eval?: string;
  script?: string;
}

export const onOption = () =>
  new Option('--on <place>', "where machines run: this host's KVM, the lab, or what works")
    .choices(['auto', 'kvm', 'lab'])
    .default('auto');

export const RUN_DEFAULTS: RunOptions = {
  on: 'auto',
  initrd: [],
  serial: [],
  dimm: [],
  nvdimm: [],
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
