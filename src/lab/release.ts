/** `cloud` is the small kernel for virtual machines, `full` the one with all drivers. */
export type Flavour = 'cloud' | 'full';

/** The kernel series that is taken when nobody asks for one. */
export const DEFAULT_SERIES = '6.12';

/** True for a kernel release such as `6.12.117+deb12-cloud-amd64`; safe to use as a file name. */
export function isRelease(text: string): boolean {
  return /^\d+\.\d+(\.\d+)?[A-Za-z0-9.+~_-]*$/.test(text) && !/^\d+\.\d+$/.test(text);
}

/** `6.12` of `6.12.117+deb12-amd64`; undefined when the text is no release. */
export function seriesOf(release: string): string | undefined {
  return /^(\d+\.\d+)[.+~-]/.exec(release)?.[1];
}

export function flavourOf(release: string): Flavour {
  return /-cloud\b/.test(release) ? 'cloud' : 'full';
}

/** Order of two releases by their numbers: below zero when `a` is older. */
export function compareReleases(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}
