/** Does the terminal take more than ASCII? By its locale, as others find out. */
export function isUnicode({ LC_ALL, LC_CTYPE, LANG, TERM } = process.env): boolean {
  const locale = [LC_ALL, LC_CTYPE, LANG].find((value) => value !== undefined && value !== '');
  return TERM !== 'linux' && /utf-?8/i.test(locale ?? '');
}
