/**
 * The fw_cfg file `etc/vmcoreinfo` (QEMU docs/specs/vmcoreinfo): the guest kernel writes where its VMCOREINFO
 * note is, which a memory dump needs to be of use to crash and makedumpfile.
 */

export const VMCOREINFO_FILE = 'etc/vmcoreinfo';
/** le16 host_format, le16 guest_format, le32 size, le64 paddr. */
const LENGTH = 16;
const FORMAT_ELF = 1;
/** An ELF note's header: name size, descriptor size, type. */
const LEAST_NOTE = 12;
const MOST_NOTE = 2 ** 20;

/** An ELF note in guest memory. */
export interface VmcoreNote {
  readonly gpa: number;
  readonly size: number;
}

export class Vmcoreinfo {
  /** The file; the guest writes into it. */
  readonly bytes = new Uint8Array(LENGTH);

  constructor() {
    this.reset();
  }

  /** The next kernel's note is elsewhere. */
  reset(): void {
    this.bytes.fill(0);
    this.bytes[0] = FORMAT_ELF;
  }

  /**
   * Where the guest says that its note is; `undefined` while it says nothing, or nonsense (another format, a
   * size outside 12 bytes to 1 MiB). Whether that is RAM shows when it is read.
   */
  get note(): VmcoreNote | undefined {
    const view = new DataView(this.bytes.buffer);
    const size = view.getUint32(4, true);
    const gpa = view.getBigUint64(8, true);
    if (view.getUint16(2, true) !== FORMAT_ELF || size < LEAST_NOTE || size > MOST_NOTE) return undefined;
    if (gpa > BigInt(Number.MAX_SAFE_INTEGER - MOST_NOTE)) return undefined;
    return { gpa: Number(gpa), size };
  }
}
