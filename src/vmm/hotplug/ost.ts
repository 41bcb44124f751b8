/** What a guest says through _OST (ACPI specification 6.4, section 6.3.5). */

/** Source events: a notification's number, or OSPM's own. */
const EVENTS = new Map<number, 'insertion' | 'ejection'>([
  [0x01, 'insertion'],
  [0x200, 'insertion'],
  [0x03, 'ejection'],
  [0x103, 'ejection'],
]);

const SUCCESS = 0x00;
const INSERTION_IN_PROGRESS = 0x80;
const EJECTION_IN_PROGRESS = 0x84;

const GENERAL: Readonly<Record<number, string>> = {
  1: 'a failure that it does not specify',
  2: 'it does not know the notification',
};
const REASONS: Readonly<Record<'insertion' | 'ejection', Readonly<Record<number, string>>>> = {
  insertion: {
    129: 'its driver could not be loaded',
    130: 'it does not support insertion',
  },
  ejection: {
    128: 'it does not support ejection',
    129: 'the device is in use by an application',
    130: 'the device is busy',
    131: 'something that depends on the device is busy, or does not support ejection',
  },
};

export interface OstAnswer {
  readonly about: 'insertion' | 'ejection';
  readonly outcome: 'success' | 'in-progress' | 'failure';
  /** The code in words, as `the device is busy (_OST 0x82)`. */
  readonly words: string;
}

/** @returns undefined for an event that is about neither coming nor going. */
export function readOst(event: number, status: number): OstAnswer | undefined {
  const about = EVENTS.get(event);
  if (about === undefined) return undefined;
  const code = `_OST 0x${status.toString(16)}`;
  if (status === SUCCESS) return { about, outcome: 'success', words: `success (${code})` };
  const progress = about === 'insertion' ? INSERTION_IN_PROGRESS : EJECTION_IN_PROGRESS;
  if (status === progress) return { about, outcome: 'in-progress', words: `in progress (${code})` };
  const reason = GENERAL[status] ?? REASONS[about][status] ?? 'a reason that ACPI does not know';
  return { about, outcome: 'failure', words: `${reason} (${code})` };
}
