/** Memory that a guest plugs and unplugs by blocks (virtio-mem): what is told of it. Sizes in bytes. */

export interface VirtioMemDevice {
  readonly kind: 'virtio-mem';
  readonly id: string;
  /** Guest-physical start of its region. */
  readonly address: number;
  /** Bytes of the region: the most that can be plugged. */
  readonly size: number;
  /** What is plugged and unplugged at once. */
  readonly block: number;
  readonly node: number;
}

/** A device with how much of it is plugged. */
export interface VirtioMemReport extends VirtioMemDevice {
  /** What the guest is asked to have plugged. */
  readonly requested: number;
  readonly plugged: number;
  /** Within so much of the region, from its start, the guest may plug blocks. */
  readonly usable: number;
  readonly backend: 'anonymous' | 'memfd';
  readonly hugepages?: '2M' | '1G';
  /** Whether a driver is ready with it. */
  readonly driver: boolean;
  /** Requests of the driver so far, by kind, and those of them that it got another answer to than yes. */
  readonly requests: Readonly<Record<'plug' | 'unplug' | 'unplugAll' | 'state' | 'nack' | 'busy' | 'error', number>>;
  /** KVM memory slots in use, of those that there are for the region. */
  readonly memslots: { readonly used: number; readonly all: number };
}
