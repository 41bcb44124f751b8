import type { ConfigSpace } from './config_space.ts';

const PCI_CAP_ID_EXP = 0x10;
const PCI_EXT_CAP_ID_ERR = 0x01;
const PCI_EXT_CAP_ID_DSN = 0x03;
const PCI_EXT_CAP_ID_ACS = 0x0d;

/** Offsets in the PCI Express capability (PCI Express Base Specification 4.0, section 7.5.3). */
export const EXP = {
  FLAGS: 0x02,
  DEVCAP: 0x04,
  DEVCTL: 0x08,
  DEVSTA: 0x0a,
  LNKCAP: 0x0c,
  LNKCTL: 0x10,
  LNKSTA: 0x12,
  SLTCAP: 0x14,
  SLTCTL: 0x18,
  SLTSTA: 0x1a,
  RTCTL: 0x1c,
  DEVCAP2: 0x24,
  DEVCTL2: 0x28,
  LNKCAP2: 0x2c,
  LNKCTL2: 0x30,
  LNKSTA2: 0x32,
  SIZE: 0x3c,
} as const;

export const EXP_TYPE_ENDPOINT = 0;
export const EXP_TYPE_ROOT_PORT = 4;
export const EXP_TYPE_UPSTREAM = 5;
export const EXP_TYPE_DOWNSTREAM = 6;
export const EXP_TYPE_PCI_BRIDGE = 7;
export const EXP_TYPE_INTEGRATED_ENDPOINT = 9;

const FLAGS_VERSION_2 = 2;
const FLAGS_SLOT = 0x100;
/** Role-based error reporting, which every device since 1.1 has. */
const DEVCAP_RBER = 1 << 15;
const DEVCAP_FLR = 1 << 28;
const DEVCTL_WRITABLE = 0x7fff;
const DEVCTL_RELAXED_ORDERING = 0x10;
const DEVCTL_NO_SNOOP = 0x800;
const DEVCTL_FLR = 0x8000;
const DEVSTA_ERRORS = 0x0f;
const SPEED_16GT = 4;
const SPEEDS_UP_TO_16GT = 0b11110;
const WIDTH = 16;
const LNKCAP_ACTIVE_REPORTING = 1 << 20;
/** ASPM, common clock, extended synch, retrain and disable are kept as written; nothing follows from them. */
const LNKCTL_WRITABLE = 0x03df;
const LNKCTL_WRITABLE_ENDPOINT = 0x01cb;
export const LNKSTA_ACTIVE = 1 << 13;
/** Completion timeouts can be disabled. */
const DEVCAP2_TIMEOUT_DISABLE = 0x10;
const DEVCTL2_WRITABLE = 0x1f;

export interface ExpressOptions {
  readonly type: number;
  /** Physical slot number behind a port; undefined without a slot. */
  readonly slot?: number;
  readonly port?: number;
  /** Called when the driver asks for a function level reset. */
  readonly functionLevelReset?: () => void;
}

/** Adds the PCI Express capability. @returns its offset. */
export function addExpress(config: ConfigSpace, options: ExpressOptions): number {
  const { type } = options;
  const at = config.addCapability(PCI_CAP_ID_EXP, EXP.SIZE);
  const port = type === EXP_TYPE_ROOT_PORT || type === EXP_TYPE_DOWNSTREAM;
  config.set(at + EXP.FLAGS, 2, FLAGS_VERSION_2 | (type << 4) | (options.slot === undefined ? 0 : FLAGS_SLOT));
  config.set(at + EXP.DEVCAP, 4, (DEVCAP_RBER | (options.functionLevelReset ? DEVCAP_FLR : 0)) >>> 0);
  config.set(at + EXP.DEVCTL, 2, port ? 0 : DEVCTL_RELAXED_ORDERING | DEVCTL_NO_SNOOP);
  config.allow(at + EXP.DEVCTL, 2, DEVCTL_WRITABLE);
  config.allowClear(at + EXP.DEVSTA, 2, DEVSTA_ERRORS);
  config.set(at + EXP.DEVCAP2, 4, DEVCAP2_TIMEOUT_DISABLE);
  config.allow(at + EXP.DEVCTL2, 2, DEVCTL2_WRITABLE);
  // An endpoint that is part of the root complex has no link.
  if (type !== EXP_TYPE_INTEGRATED_ENDPOINT) {
    config.set(
      at + EXP.LNKCAP,
      4,
      (SPEED_16GT | (WIDTH << 4) | (port ? LNKCAP_ACTIVE_REPORTING : 0) | ((options.port ?? 0) << 24)) >>> 0,
    );
    config.allow(at + EXP.LNKCTL, 2, port ? LNKCTL_WRITABLE : LNKCTL_WRITABLE_ENDPOINT);
    config.set(at + EXP.LNKSTA, 2, SPEED_16GT | (WIDTH << 4));
    config.set(at + EXP.LNKCAP2, 4, SPEEDS_UP_TO_16GT);
    config.set(at + EXP.LNKCTL2, 2, SPEED_16GT);
    config.allow(at + EXP.LNKCTL2, 2, 0xf);
  }
  const { functionLevelReset } = options;
  if (functionLevelReset) {
    config.allow(at + EXP.DEVCTL, 2, DEVCTL_FLR);
    config.watch(at + EXP.DEVCTL, 2, () => {
      const control = config.read(at + EXP.DEVCTL, 2);
      if (!(control & DEVCTL_FLR)) return;
      // The bit reads as zero.
      config.set(at + EXP.DEVCTL, 2, control & ~DEVCTL_FLR);
      functionLevelReset();
    });
  }
  return at;
}

/** Adds Advanced Error Reporting (section 7.8.4), with the root's registers for a root port. */
export function addAer(config: ConfigSpace, root: boolean): void {
  const at = config.addExtendedCapability(PCI_EXT_CAP_ID_ERR, 2, root ? 0x48 : 0x38);
  const uncorrectable = 0x07fff030;
  const correctable = 0xf1c1;
  config.allowClear(at + 0x04, 4, uncorrectable);
  config.set(at + 0x08, 4, 0x00400000);
  config.allow(at + 0x08, 4, uncorrectable);
  config.set(at + 0x0c, 4, 0x00462030);
  config.allow(at + 0x0c, 4, uncorrectable);
  config.allowClear(at + 0x10, 4, correctable);
  config.set(at + 0x14, 4, 0xe000);
  config.allow(at + 0x14, 4, correctable);
  if (!root) return;
  config.allow(at + 0x2c, 4, 0x7);
  config.allowClear(at + 0x30, 4, 0x7f);
}

/** Adds Access Control Services (section 7.7.8): what isolates functions for passing them through. */
export function addAcs(config: ConfigSpace): void {
  const at = config.addExtendedCapability(PCI_EXT_CAP_ID_ACS, 1, 8);
  const sourceValidation = 0x01;
  const requestRedirect = 0x04;
  const completionRedirect = 0x08;
  const upstreamForwarding = 0x10;
  const directTranslated = 0x40;
  const all = sourceValidation | requestRedirect | completionRedirect | upstreamForwarding | directTranslated;
  config.set(at + 4, 2, all);
  config.allow(at + 6, 2, all);
}

/** Adds a Device Serial Number (section 7.9.3). @param serial EUI-64. */
export function addSerialNumber(config: ConfigSpace, serial: bigint): void {
  const at = config.addExtendedCapability(PCI_EXT_CAP_ID_DSN, 1, 12);
  config.set(at + 4, 4, Number(serial & 0xffffffffn));
  config.set(at + 8, 4, Number(serial >> 32n));
}
