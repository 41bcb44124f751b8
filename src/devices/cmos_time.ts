/** Time and alarm registers of the MC146818 as numbers: BCD or binary, 12 or 24 hours. */

/** Bits DM and 24/12 of register B. */
export interface RtcFormat {
  readonly binary: boolean;
  readonly hours24: boolean;
}

const SECONDS = 0;
const MINUTES = 2;
const HOURS = 4;
const DAY_OF_WEEK = 6;
const DAY_OF_MONTH = 7;
const MONTH = 8;
const YEAR = 9;
/** Where ACPI's FADT says that the century is. */
const CENTURY = 0x32;
const PM = 0x80;
/** An alarm register with both top bits set matches every value. */
const DONT_CARE = 0xc0;

const decode = (value: number, { binary }: RtcFormat) => (binary ? value : (value >> 4) * 10 + (value & 0x0f));
const encode = (value: number, { binary }: RtcFormat) =>
  binary ? value : (Math.floor(value / 10) << 4) | (value % 10);

function decodeHours(value: number, format: RtcFormat): number {
  if (format.hours24) return decode(value, format);
  return (decode(value & ~PM, format) % 12) + (value & PM ? 12 : 0);
}

function encodeHours(hours: number, format: RtcFormat): number {
  if (format.hours24) return encode(hours, format);
  return encode(hours % 12 || 12, format) | (hours >= 12 ? PM : 0);
}

/** Writes a time in seconds since 1970 into the registers at the start of `ram`. */
export function writeFields(ram: Uint8Array, second: number, format: RtcFormat): void {
  const date = new Date(second * 1000);
  const year = date.getUTCFullYear();
  ram[SECONDS] = encode(date.getUTCSeconds(), format);
  ram[MINUTES] = encode(date.getUTCMinutes(), format);
  ram[HOURS] = encodeHours(date.getUTCHours(), format);
  ram[DAY_OF_WEEK] = encode(date.getUTCDay() + 1, format);
  ram[DAY_OF_MONTH] = encode(date.getUTCDate(), format);
  ram[MONTH] = encode(date.getUTCMonth() + 1, format);
  ram[YEAR] = encode(year % 100, format);
  ram[CENTURY] = encode(Math.floor(year / 100) % 100, format);
}

/** Seconds since 1970 of the time in the registers. What no calendar has (a 40th of May) runs over into the next unit. */
export function readFields(ram: Uint8Array, format: RtcFormat): number {
  const date = new Date(0);
  date.setUTCFullYear(
    decode(ram[CENTURY], format) * 100 + decode(ram[YEAR], format),
    decode(ram[MONTH], format) - 1,
    decode(ram[DAY_OF_MONTH], format),
  );
  date.setUTCHours(decodeHours(ram[HOURS], format), decode(ram[MINUTES], format), decode(ram[SECONDS], format));
  return Math.floor(date.getTime() / 1000);
}

/** What an alarm register waits for: a number, or `undefined` for any. */
export function alarmField(
  value: number,
  format: RtcFormat,
  unit: 'hours' | 'minutes' | 'seconds',
): number | undefined {
  if ((value & DONT_CARE) === DONT_CARE) return undefined;
  return unit === 'hours' ? decodeHours(value, format) : decode(value, format);
}

const DAY = 86_400;

/**
 * The first time after `second` that matches all of the given fields, in seconds since 1970; infinity when
 * none does (an hour of 31).
 */
export function nextAlarm(
  second: number,
  hours: number | undefined,
  minutes: number | undefined,
  seconds: number | undefined,
): number {
  for (let at = second + 1; at <= second + DAY; ) {
    const ofDay = ((at % DAY) + DAY) % DAY;
    if (hours !== undefined && Math.floor(ofDay / 3600) !== hours) at += 3600 - (ofDay % 3600);
    else if (minutes !== undefined && Math.floor(ofDay / 60) % 60 !== minutes) at += 60 - (ofDay % 60);
    else if (seconds !== undefined && ofDay % 60 !== seconds) at++;
    else return at;
  }
  return Number.POSITIVE_INFINITY;
}
